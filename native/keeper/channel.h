/* SPDX-License-Identifier: Apache-2.0 */
/* Messages with at most one fd, over SOCK_SEQPACKET. Nothing here waits. */
#ifndef KEEPER_CHANNEL_H
#define KEEPER_CHANNEL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Two ends, both O_CLOEXEC and O_NONBLOCK, with room for many messages. 0, or -1 and errno. */
int channel_pair(int ends[2]);
/* Send the parts as one message, `fd` with it unless it is -1. 0, or -1 and errno. */
int channel_send(int channel, struct iovec *parts, size_t count, int fd);
/*
 * Receive a message of exactly `size` bytes; `fd` is the one that came along, or -1. Returns 1; 0 at the
 * end; -1 and errno (EAGAIN: none waits; EPROTO: it had another size, and is dropped).
 */
int channel_receive(int channel, void *message, size_t size, int *fd);
int control_send(int channel, uint32_t what, int32_t value, int fd);

#endif
