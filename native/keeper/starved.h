/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a process that says nothing hang, or does it get no CPU? That takes two looks at /proc, which waits
 * for nobody. One is not enough: of an interpreter that is deadlocked, threads wake every 5 ms to ask for
 * its lock, and are often found runnable.
 */
#ifndef KEEPER_STARVED_H
#define KEEPER_STARVED_H

#include <stdint.h>
#include <sys/types.h>

#define LOOKED_AT_MAX 64 /* threads; with more, the others don't count */

struct thread_look {
	pid_t thread;
	char state;			    /* see proc_pid_stat(5) */
	unsigned long long waited, slices; /* ns that it waited for a CPU, times that it got one: schedstat */
};

struct cpu_look {
	uint64_t at; /* CLOCK_MONOTONIC, ns */
	pid_t process;
	unsigned count;
	struct thread_look threads[LOOKED_AT_MAX];
};

void look_at_cpu(struct cpu_look *look, pid_t process);
/* Has one of its threads waited for a CPU most of the time since then? */
int is_starved(const struct cpu_look *look);

#endif
