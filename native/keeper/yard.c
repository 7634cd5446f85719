// SPDX-License-Identifier: Apache-2.0
/*
 * The yard: owns the fanotify group of pid files and first programs.
 *
 * To read an event the kernel opens its file, and to mark one it may look it up: on a file system whose
 * server gives no answer either waits for ever, SIGKILL or not. So that is done by threads, and the whole
 * process can be thrown away: the guard takes the marks away, answers what was held, and makes a new one.
 */
#define _GNU_SOURCE
#include "door.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "channel.h"
#include "marks.h"
#include "sandbox.h"
#include "upgrade.h"

#define READERS 8
#define READY_MAX 8
#define STACK_SIZE (64 << 10)
#define SECOND 1000000000ull

struct yard {
	struct keep *keep;
	const struct records *records;
	int timer;	/* readers set it: the main thread is not woken for each of their holds */
	uint64_t until; /* it looks at deadlines then, if nothing else wakes it */
};

static struct yard yard_;

static int start_thread(void *(*run)(void *), void *argument)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int error;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_SIZE);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	error = pthread_create(&thread, &attributes, run, argument);
	if (error)
		say(yard_.keep->name, "no thread: %s", strerror(error));
	pthread_attr_destroy(&attributes);
	return error;
}

/* There is a hold: see to it that the main thread looks after it. */
static void wake_in_time(struct yard *y)
{
	uint64_t time = now() + y->keep->settings.hang / 8;
	struct itimerspec timer = {.it_interval = {0}};

	if (y->keep->next < time)
		time = y->keep->next;
	if (!y->keep->table->live || time >= y->until)
		return;
	y->until = time;
	timer.it_value.tv_sec = (time_t)(time / SECOND);
	timer.it_value.tv_nsec = (long)(time % SECOND);
	timerfd_settime(y->timer, TFD_TIMER_ABSTIME, &timer, NULL);
}

static void take(struct yard *y, const struct fanotify_event_metadata *event)
{
	struct keep *k = y->keep;
	int32_t pid = records_host_pid(y->records, k->group, event->fd, event->pid);
	struct arrival arrival = {
		.number = event->fd, .pid = pid, .seen = event->pid, .mask = event->mask, .record = "", .path = ""};

	pthread_mutex_lock(&k->lock);
	k->table->taken++;
	if (keep_is_own(k, event->pid))
		keep_answer(k, event->fd, 0);
	else
		keep_arrived(k, &arrival);
	wake_in_time(y);
	pthread_mutex_unlock(&k->lock);
}

static void read_event(struct yard *y)
{
	struct fanotify_event_metadata event;
	ssize_t got = read(y->keep->group, &event, sizeof(event));

	if (got < 0 && errno == EAGAIN)
		return; /* another reader was faster */
	if (got == sizeof(event) && event.fd >= 0) {
		take(y, &event);
		return;
	}
	pthread_mutex_lock(&y->keep->lock);
	keep_missed(y->keep);
	pthread_mutex_unlock(&y->keep->lock);
}

static void *read_events(void *argument)
{
	struct yard *y = argument;
	struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE};
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	epoll_ctl(epoll, EPOLL_CTL_ADD, y->keep->group, &event);
	for (;;) {
		if (epoll_wait(epoll, &event, 1, -1) < 1)
			continue;
		pthread_mutex_lock(&y->keep->lock);
		keep_make_room(y->keep);
		keep_wake_guard(y->keep); /* this thread may hang in read(2) */
		pthread_mutex_unlock(&y->keep->lock);
		read_event(y);
	}
	return NULL;
}

/* Each of the worker's sockets for marks has a thread: a mark that hangs keeps no other waiting. */
static void *serve_marks(void *argument)
{
	struct pollfd in = {.fd = (int)(intptr_t)argument, .events = POLLIN};

	while (poll(&in, 1, -1) >= 0 || errno == EINTR)
		if (in.revents && !marks_serve(yard_.keep->group, in.fd))
			break;
	close(in.fd);
	return NULL;
}

static void obey(struct yard *y)
{
	struct keep *k = y->keep;
	struct control control;
	int fd, got = channel_receive(k->guard, &control, sizeof(control), &fd);

	if (got == 0)
		_exit(0);
	if (got < 0)
		return;
	if (control.what == WORKER_MARKS && fd >= 0) {
		if (start_thread(serve_marks, (void *)(intptr_t)fd))
			close(fd);
	} else if (control.what == UPGRADE && fd >= 0) {
		pthread_mutex_lock(&k->lock); /* no reader is to be executed away with the table half changed */
		upgrade(k, y->records, fd);
		pthread_mutex_unlock(&k->lock);
	} else {
		pthread_mutex_lock(&k->lock);
		keep_obey(k, &control, fd);
		pthread_mutex_unlock(&k->lock);
	}
}

static void go_round(struct yard *y, const struct epoll_event *ready)
{
	struct keep *k = y->keep;
	uint64_t count;

	if (ready->data.fd == k->guard) {
		obey(y);
		return;
	}
	pthread_mutex_lock(&k->lock);
	if (ready->data.fd == y->timer) {
		if (read(y->timer, &count, sizeof(count)) < 0)
			errno = 0; /* set again meanwhile */
	} else if (ready->data.fd == k->events) {
		keep_hear(k, ready->events);
	}
	pthread_mutex_unlock(&k->lock);
}

static int due(struct yard *y)
{
	int left;

	pthread_mutex_lock(&y->keep->lock);
	left = keep_due(y->keep);
	y->until = left < 0 ? UINT64_MAX : now() + (uint64_t)left * (SECOND / 1000);
	pthread_mutex_unlock(&y->keep->lock);
	return left;
}

_Noreturn void yard(struct keep *k, const struct records *records)
{
	struct yard *y = &yard_;
	struct epoll_event ready[READY_MAX];

	prctl(PR_SET_NAME, "startgate-yard");
	sandbox(k->name, CONTAINERS);
	y->keep = k;
	y->records = records;
	y->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (keep_watch(k, k->guard, EPOLLIN) || keep_watch(k, y->timer, EPOLLIN)) {
		say(k->name, "can't start: %s", strerror(errno));
		_exit(1);
	}
	for (int i = 0; i < READERS; i++)
		if (start_thread(read_events, y) && i == 0)
			_exit(1);
	stay_in_memory();
	for (;;) {
		int count = epoll_wait(k->epoll, ready, READY_MAX, due(y));

		for (int i = 0; i < count; i++)
			go_round(y, &ready[i]);
	}
}
