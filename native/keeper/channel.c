// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol.h"

#define ROOM (4 << 20) /* bytes: a thousand holds, each with its record */
#define FDS_MAX 8      /* more are dropped by the kernel (MSG_CTRUNC) */

union control_buffer {
	char bytes[CMSG_SPACE(sizeof(int) * FDS_MAX)];
	struct cmsghdr align;
};

int channel_pair(int ends[2])
{
	int room = ROOM;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
		return -1;
	for (int i = 0; i < 2; i++)
		if (setsockopt(ends[i], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)))
			setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	return 0;
}

int channel_send(int channel, struct iovec *parts, size_t count, int fd)
{
	union control_buffer buffer;
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
	ssize_t sent;

	if (fd >= 0) {
		struct cmsghdr *header;

		memset(&buffer, 0, sizeof(buffer));
		message.msg_control = buffer.bytes;
		message.msg_controllen = CMSG_SPACE(sizeof(int));
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	}
	do
		sent = sendmsg(channel, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -1 : 0;
}

/* Keep the first fd, close all others: whoever sends us more is broken, and must not fill our table. */
static int first_fd(struct msghdr *message)
{
	int first = -1;

	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
		size_t count;

		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
			if (first < 0)
				first = fd;
			else
				close(fd);
		}
	}
	return first;
}

int channel_receive(int channel, void *data, size_t size, int *fd)
{
	union control_buffer buffer;
	struct iovec part = {.iov_base = data, .iov_len = size};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = buffer.bytes, .msg_controllen = sizeof(buffer)};
	ssize_t got;

	do
		got = recvmsg(channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	*fd = -1;
	if (got < 0)
		return -1;
	*fd = first_fd(&message);
	if ((size_t)got == size && !(message.msg_flags & MSG_TRUNC))
		return 1;
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = EPROTO;
	return got == 0 ? 0 : -1; /* an empty message looks like the end, and is taken for it */
}

int control_send(int channel, uint32_t what, int32_t value, int fd)
{
	struct control message = {.what = what, .value = value};
	struct iovec part = {.iov_base = &message, .iov_len = sizeof(message)};

	return channel_send(channel, &part, 1, fd);
}
