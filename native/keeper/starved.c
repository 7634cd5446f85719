// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "starved.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keep.h"

static int read_text(pid_t process, pid_t thread, const char *name, char *text, size_t room)
{
	char path[64];
	ssize_t size;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", process, thread, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	size = read(fd, text, room - 1);
	close(fd);
	text[size > 0 ? size : 0] = 0;
	return size > 0 ? 0 : -1;
}

/* A kernel without schedstat tells of no waiting: then the states alone count. */
static int look_at_thread(struct thread_look *look, pid_t process, pid_t thread)
{
	char text[512], *name_end;

	*look = (struct thread_look){.thread = thread};
	if (read_text(process, thread, "stat", text, sizeof(text)))
		return -1;
	name_end = strrchr(text, ')');
	if (!name_end || !name_end[1])
		return -1;
	look->state = name_end[2];
	if (!read_text(process, thread, "schedstat", text, sizeof(text)))
		sscanf(text, "%*u %llu %llu", &look->waited, &look->slices);
	return 0;
}

void look_at_cpu(struct cpu_look *look, pid_t process)
{
	char path[64];
	struct dirent *entry;
	DIR *threads;

	look->at = now();
	look->process = process;
	look->count = 0;
	snprintf(path, sizeof(path), "/proc/%d/task", process);
	threads = opendir(path);
	if (!threads)
		return;
	while (look->count < LOOKED_AT_MAX && (entry = readdir(threads)))
		if (entry->d_name[0] != '.' &&
		    !look_at_thread(&look->threads[look->count], process, atoi(entry->d_name)))
			look->count++;
	closedir(threads);
}

int is_starved(const struct cpu_look *look)
{
	uint64_t passed = now() - look->at;

	for (unsigned i = 0; i < look->count; i++) {
		const struct thread_look *before = &look->threads[i];
		struct thread_look after;

		if (look_at_thread(&after, look->process, before->thread))
			continue;
		if (before->state == 'R' && after.state == 'R' && before->slices == after.slices)
			return 1; /* it is counted as waiting only when it runs again */
		if (after.waited - before->waited > passed / 2)
			return 1;
	}
	return 0;
}
