// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "notify.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void notify(const char *format, ...)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char text[512];
	va_list values;
	int channel, size;

	if (!path || !*path || strlen(path) >= sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, path, strlen(path));
	if (address.sun_path[0] == '@')
		address.sun_path[0] = 0;
	va_start(values, format);
	size = vsnprintf(text, sizeof(text), format, values);
	va_end(values);
	channel = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (channel < 0)
		return;
	sendto(channel, text, (size_t)(size < (int)sizeof(text) ? size : (int)sizeof(text) - 1), MSG_NOSIGNAL,
	       (const struct sockaddr *)&address,
	       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
	close(channel);
}

uint64_t watchdog_interval(void)
{
	const char *interval = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");

	if (!interval || (pid && atoi(pid) != getpid()))
		return 0;
	return strtoull(interval, NULL, 10) * 1000 / 2;
}
