// SPDX-License-Identifier: Apache-2.0
/*
 * The scribe: writes the daemon's output. A worker may die at any moment, and leave half a line; this process
 * does nothing else than to write lines, which wait in its socket, and so outlives all workers.
 */
#define _GNU_SOURCE
#include "scribe.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_SIZE (4 << 20)
#define BREATH_NS 100000000

static char line[LINE_MAX_SIZE];

static void breathe(void)
{
	const struct timespec breath = {.tv_nsec = BREATH_NS};

	nanosleep(&breath, NULL);
}

/* Is nobody left who could send us lines? Then nobody waits for us either. */
static int is_over(int lines)
{
	struct pollfd end = {.fd = lines, .events = POLLIN};

	return poll(&end, 1, 0) == 1 && end.revents & POLLHUP;
}

/* Wait for what keeps a write from being done. 0: it can't be done any more. */
static int await(int lines)
{
	struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};

	if (errno == EINTR)
		return 1;
	if (errno == EAGAIN)
		return poll(&out, 1, -1) >= 0 || errno == EINTR;
	if ((errno != ENOSPC && errno != EDQUOT && errno != EIO) || is_over(lines))
		return 0; /* EPIPE: nobody reads */
	breathe(); /* the disk is full: what comes meanwhile waits */
	return 1;
}

static void write_line(int lines, size_t size, volatile int *torn)
{
	for (size_t done = 0; done < size;) {
		ssize_t wrote = write(STDOUT_FILENO, line + done, size - done);

		if (wrote > 0) {
			done += (size_t)wrote;
			*torn = done < size;
		} else if (wrote < 0 && !await(lines)) {
			return;
		}
	}
}

void scribe(int lines, volatile int *torn)
{
	if (*torn && write(STDOUT_FILENO, "\n", 1) == 1)
		*torn = 0;
	for (;;) {
		ssize_t size = recv(lines, line, sizeof(line), 0);

		if (size > 0)
			write_line(lines, (size_t)size, torn);
		else if (size == 0 || errno != EINTR)
			return;
	}
}
