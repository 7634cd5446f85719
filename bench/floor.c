// SPDX-License-Identifier: Apache-2.0
// The floor: the least that a listener for fanotify permission events can do. It reads each event
// and answers it at once, with the marks that startgate has, and looks at nothing.
//   floor [--exec FILE]... [--read DIRECTORY]...
//   --exec holds who executes the file, --read holds who reads a file in the directory
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
#include <unistd.h>

#define ONE sizeof(struct fanotify_event_metadata)

static int mark(int group, const char *kind, const char *path)
{
	unsigned long long mask = strcmp(kind, "--exec") == 0 ? FAN_OPEN_EXEC_PERM : FAN_ACCESS_PERM | FAN_EVENT_ON_CHILD;

	if (fanotify_mark(group, FAN_MARK_ADD, mask, AT_FDCWD, path) == 0)
		return 0;
	perror(path);
	return 1;
}

static void answer(int group, int fd)
{
	struct fanotify_response allow = {.fd = fd, .response = FAN_ALLOW};

	if (write(group, &allow, sizeof(allow)) < 0)
		perror("answer");
	close(fd);
}

int main(int argc, char **argv)
{
	struct fanotify_event_metadata event;
	int group = fanotify_init(FAN_CLOEXEC | FAN_CLASS_CONTENT | FAN_REPORT_TID, O_RDONLY | O_CLOEXEC);

	if (group < 0) {
		perror("fanotify_init");
		return 1;
	}
	for (int i = 1; i + 1 < argc; i += 2)
		if (mark(group, argv[i], argv[i + 1]))
			return 1;
	fprintf(stderr, "watching\n");
	while (read(group, &event, ONE) == ONE)
		if (event.fd >= 0)
			answer(group, event.fd);
	perror("read");
	return 1;
}
