// SPDX-License-Identifier: Apache-2.0
/*
 * The door: owns the fanotify group of the runtime binaries, and all of its deadlines.
 *
 * It opens nothing, looks nothing up and waits for nobody: what can be held up by a file system, by Python
 * or by a user is somebody else's work. Runtime binaries are on local file systems (the worker sees to
 * that before it asks for a mark), so the kernel's own open of an event's file does not wait either.
 */
#define _GNU_SOURCE
#include "door.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "channel.h"
#include "marks.h"
#include "sandbox.h"
#include "upgrade.h"

#define READY_MAX 8
#define READ_AT_ONCE 16 /* events, until answers have a turn */

struct door {
	struct keep *keep;
	const struct records *records;
	int marks; /* the worker asks for marks here; -1 */
	struct exec_record record;
	char path[PATH_MAX];
};

/* d_path() of an open file asks no file system. */
static size_t path_of(struct door *d, int fd)
{
	char name[32];
	ssize_t size;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	size = readlink(name, d->path, sizeof(d->path));
	return size > 0 && size < (ssize_t)sizeof(d->path) ? (size_t)size : 0;
}

static void hold(struct door *d, const struct fanotify_event_metadata *event, int32_t tid, size_t size)
{
	struct arrival arrival = {
		.number = event->fd,
		.pid = tid,
		.seen = event->pid,
		.mask = event->mask,
		.record = &d->record,
		.record_size = size,
		.path = d->path,
		.path_size = path_of(d, event->fd),
		.owed = records_owed(&d->record, size),
	};

	if (arrival.record_size + arrival.path_size > SLOT_ROOM)
		arrival.path_size = 0;
	keep_arrived(d->keep, &arrival);
}

static void take(struct door *d, const struct fanotify_event_metadata *event)
{
	struct keep *k = d->keep;
	int32_t tid = records_host_pid(d->records, k->group, event->fd, event->pid);
	size_t size = records_take(d->records, tid, &d->record);

	if (keep_is_own(k, event->pid) || (size && records_need_no_hold(&d->record, k->settling != 0)))
		keep_answer(k, event->fd, 0);
	else
		hold(d, event, tid, size);
}

/* One event for each read(2): BPF's queue counts on it, and the kernel denies what finds no free fd. */
static int read_event(struct door *d)
{
	struct fanotify_event_metadata event;
	ssize_t got;

	keep_make_room(d->keep);
	got = read(d->keep->group, &event, sizeof(event));
	if (got < 0 && errno == EAGAIN)
		return 0;
	if (got != sizeof(event) || event.fd < 0) {
		say(d->keep->name, got < 0 ? "an event can't be read: %s" : "events were dropped by the kernel",
		    strerror(errno));
		keep_missed(d->keep);
		return got >= 0;
	}
	take(d, &event);
	return 1;
}

static void read_events(struct door *d)
{
	for (int i = 0; i < READ_AT_ONCE && read_event(d); i++)
		;
}

static void obey(struct door *d)
{
	struct keep *k = d->keep;
	struct control control;
	int fd, got = channel_receive(k->guard, &control, sizeof(control), &fd);

	if (got == 0)
		_exit(0); /* the guard is gone, and with us the group: the kernel lets all go */
	if (got < 0)
		return;
	if (control.what == WORKER_MARKS) {
		if (d->marks >= 0)
			close(d->marks);
		d->marks = fd;
		if (fd >= 0)
			keep_watch(k, fd, EPOLLIN);
	} else if (control.what == UPGRADE && fd >= 0) {
		upgrade(k, d->records, fd);
	} else {
		keep_obey(k, &control, fd);
	}
}

static void mark(struct door *d)
{
	if (marks_serve(d->keep->group, d->marks))
		return;
	close(d->marks);
	d->marks = -1;
}

_Noreturn void door(struct keep *k, const struct records *records)
{
	static struct door door = {.marks = -1};
	struct epoll_event ready[READY_MAX];

	prctl(PR_SET_NAME, "startgate-door");
	sandbox(k->name, COMMANDS);
	door.keep = k;
	door.records = records;
	if (keep_watch(k, k->group, EPOLLIN) || keep_watch(k, k->guard, EPOLLIN)) {
		say(k->name, "can't start: %s", strerror(errno));
		_exit(1);
	}
	stay_in_memory();
	for (;;) {
		int count = epoll_wait(k->epoll, ready, READY_MAX, keep_due(k));

		for (int i = 0; i < count; i++) {
			int fd = ready[i].data.fd;

			if (fd == k->group)
				read_events(&door);
			else if (fd == k->guard)
				obey(&door);
			else if (fd == k->events)
				keep_hear(k, ready[i].events);
			else if (fd == door.marks)
				mark(&door);
		}
	}
}
