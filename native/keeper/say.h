/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KEEPER_SAY_H
#define KEEPER_SAY_H

/* One line for people, on stderr; lost where nobody reads it. */
void say(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));
/*
 * The door and the yard say it to the guard: their stderr is the socket `to_guard` from now on. For a write to a
 * terminal that is stopped, or to a file on a disk that hangs, may wait, whatever poll(2) says before.
 */
void say_to_guard(int to_guard);
/* So it is still, after an execve. */
void say_to_guard_again(void);
/* The guard: say what they said to the other end. */
void say_on(int from_others);

#endif
