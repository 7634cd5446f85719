// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "marks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/fanotify.h>
#include <unistd.h>

#include "channel.h"
#include "protocol.h"

#define ALLOWED_FLAGS                                                                                        \
	(FAN_MARK_ADD | FAN_MARK_REMOVE | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY)
#define ALLOWED_MASK (FAN_ACCESS_PERM | FAN_OPEN_EXEC_PERM | FAN_EVENT_ON_CHILD)

static int place(int group, const struct mark_request *request, int fd)
{
	char path[32];

	if (fd < 0 || request->flags & ~(uint32_t)ALLOWED_FLAGS || request->mask & ~(uint64_t)ALLOWED_MASK)
		return EINVAL;
	/* Of an fd opened with O_PATH fanotify_mark(2) takes the name only, not the fd itself. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return fanotify_mark(group, request->flags, request->mask, AT_FDCWD, path) ? errno : 0;
}

int marks_serve(int group, int socket)
{
	struct mark_request request;
	struct mark_reply reply = {.error = EPROTO};
	struct iovec part = {.iov_base = &reply, .iov_len = sizeof(reply)};
	int fd, got = channel_receive(socket, &request, sizeof(request), &fd);

	if (got < 0 && errno == EAGAIN)
		return 1;
	if (got == 0 || (got < 0 && errno != EPROTO))
		return 0;
	if (got > 0)
		reply.error = place(group, &request, fd);
	if (fd >= 0)
		close(fd);
	return channel_send(socket, &part, 1, -1) == 0;
}
