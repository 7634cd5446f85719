/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KEEPER_SCRIBE_H
#define KEEPER_SCRIBE_H

/*
 * Write each message of the socket `lines` to stdout, whole, and wait for whoever reads there, or for space on
 * the disk. `torn` is shared with the scribe after us: it says that a line is begun and not ended. Returns at
 * the socket's end.
 */
void scribe(int lines, volatile int *torn);

#endif
