// SPDX-License-Identifier: Apache-2.0
/*
 * Throwing a yard away. A thread of it may wait for a FUSE server that never answers: then even SIGKILL
 * does not end it, and its group stays. So the group's marks go first, what it held is answered by number
 * (fanotify_write() asks nobody who read it), and what is still unread is read by processes that may get
 * stuck themselves, one after the other.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "channel.h"
#include "guard.h"

#define LOOK_AFTER 200000000ull
#define TRIES 32

int unread_events(int group)
{
	int size = 0;

	return ioctl(group, FIONREAD, &size) ? 0 : size / (int)sizeof(struct fanotify_event_metadata);
}

static void answer(int group, int number, int denied)
{
	struct fanotify_response response = {.fd = number, .response = denied ? FAN_DENY : FAN_ALLOW};

	while (write(group, &response, sizeof(response)) < 0 && errno == EINTR)
		; /* ENOENT: no event has this number */
}

/* The list may be torn: nobody holds its lock. So no more is walked than there can be. */
static void let_go(int group, struct table *table)
{
	static uint8_t denies[SLOTS];
	int number = table->oldest;

	fanotify_mark(group, FAN_MARK_FLUSH, 0, AT_FDCWD, NULL);
	memset(denies, 0, sizeof(denies));
	for (int i = 0; i < SLOTS && number >= 0 && number < SLOTS; i++) {
		denies[number] = table_slot(table, number)->denies;
		number = table_slot(table, number)->next;
	}
	for (number = 0; number < SLOTS; number++) /* all: some may be read, and not in the table */
		answer(group, number, denies[number]);
}

/* It may get stuck, and then stay: it has nothing but the old group. */
static _Noreturn void drain(int group, pid_t parent)
{
	struct fanotify_event_metadata event;

	end_with_parent(parent);
	keep_only(&group, 1);
	fcntl(group, F_SETFL, O_NONBLOCK);
	while (read(group, &event, sizeof(event)) == sizeof(event))
		if (event.fd >= 0) {
			answer(group, event.fd, 0);
			close(event.fd);
		}
	_exit(0);
}

static void forget(struct old_group *old)
{
	close(old->group);
	*old = (struct old_group){.group = -1};
}

static void keep_old(struct guard *g, int group)
{
	for (int i = 0; i < OLD_MAX; i++)
		if (!g->old[i].drainer && !g->old[i].look) {
			g->old[i] = (struct old_group){.group = group, .look = now()};
			return;
		}
	close(group);
}

void on_drained(struct guard *g, pid_t pid)
{
	for (int i = 0; i < OLD_MAX; i++)
		if (pid > 0 && g->old[i].drainer == pid)
			forget(&g->old[i]);
}

void drain_old_groups(struct guard *g, uint64_t at)
{
	pid_t parent = getpid();
	int unread;

	for (int i = 0; i < OLD_MAX; i++) {
		struct old_group *old = &g->old[i];

		if (!old->look || old->look > at)
			continue;
		unread = unread_events(old->group);
		if ((!unread && old->tries) || old->tries == TRIES) { /* at a second look, too */
			forget(old);
			continue;
		}
		old->tries++;
		old->look = at + LOOK_AFTER;
		if (unread && (old->drainer = fork()) == 0)
			drain(old->group, parent);
	}
}

uint64_t next_drain(const struct guard *g)
{
	uint64_t least = 0;

	for (int i = 0; i < OLD_MAX; i++)
		if (g->old[i].look && (!least || g->old[i].look < least))
			least = g->old[i].look;
	return least;
}

static int new_group(void)
{
	return fanotify_init(FAN_CLOEXEC | FAN_NONBLOCK | FAN_CLASS_CONTENT | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS,
			     O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_LARGEFILE);
}

void replace_yard(struct guard *g, const char *why)
{
	struct child before = g->yard;

	say("keeper", "a new yard, for %s: marks are made again", why);
	if (before.pid > 0)
		kill(before.pid, SIGKILL); /* not waited for */
	let_go(g->containers, before.table);
	table_unmap(before.table);
	close(before.memory);
	unwatch_fd(g, before.control);
	close(before.control);
	unwatch_fd(g, g->containers);
	keep_old(g, g->containers);
	g->yard = (struct child){.control = -1};
	g->unread_since = 0;
	g->containers = new_group();
	if (g->containers < 0 || start_yard(g)) {
		say("keeper", "there is no new yard: %s", strerror(errno));
		exit(1); /* with us the door ends, and the kernel lets all go */
	}
	introduce_new_yard(g);
}
