// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "say.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE 512
#define LINES_AT_ONCE 16

static int is_socket_of_guard;

static void write_line(const char *line, size_t size)
{
	struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};

	if (is_socket_of_guard) {
		send(STDERR_FILENO, line, size, MSG_DONTWAIT | MSG_NOSIGNAL);
		return;
	}
	if (poll(&out, 1, 0) == 1 && out.revents == POLLOUT && write(STDERR_FILENO, line, size) < 0)
		return; /* ENOSPC */
}

void say(const char *name, const char *format, ...)
{
	char line[LINE];
	va_list values;
	int size, more, room;

	size = snprintf(line, sizeof(line), "startgate: %s: ", name);
	room = LINE - size - 1;
	va_start(values, format);
	more = vsnprintf(line + size, (size_t)room, format, values);
	va_end(values);
	size += more < room ? more : room - 1;
	line[size++] = '\n';
	write_line(line, (size_t)size);
}

void say_to_guard(int to_guard)
{
	if (dup2(to_guard, STDERR_FILENO) >= 0)
		is_socket_of_guard = 1;
}

void say_to_guard_again(void)
{
	is_socket_of_guard = 1;
}

void say_on(int from_others)
{
	char line[LINE];
	ssize_t size;

	for (int i = 0; i < LINES_AT_ONCE; i++)
		if ((size = recv(from_others, line, sizeof(line), MSG_DONTWAIT)) > 0)
			write_line(line, (size_t)size);
}
