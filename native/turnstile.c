// SPDX-License-Identifier: Apache-2.0
/*
 * Lets go at once whoever executes a runtime for something that needs no hold.
 *
 * A thread that knows nothing of Python reads the fanotify group of the runtime binaries. It looks
 * each event's execve up in the BPF map exec_args, and answers if the record is whole and none of
 * its arguments is one of the words that startgate looks for. Every other event goes on through a
 * pipe in packet mode (pipe(2), O_DIRECT): the event, then as much of its record as is used. A
 * packet of four bytes is the errno of a read(2) that failed.
 *
 * Nothing here waits for anyone but the kernel. While the pipe is full, events wait in the group.
 * src/startgate/kernel/turnstile.py is the other side, and mirrors `struct turnstile_setup`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <linux/types.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../bpf/exec_record.h"

#define SOURCES 4
#define BREATH_NS 2000000
#define BREATHS 200

/* Words of memory that a supervisor shares. No other thread writes the first three. */
struct counters {
	uint64_t turns;	  /* how often the thread came back from its wait */
	uint64_t holds;	  /* events that were passed on, each owed an answer */
	uint64_t top;	  /* the highest number that an event's fd had */
	uint64_t resting; /* the supervisor sleeps, and wants to be told of a hold */
	uint64_t unsettled; /* containers whose `start` or `delete` may have to be held */
};

struct turnstile_setup {
	int32_t group;	/* the fanotify group, made with FAN_NONBLOCK and FAN_REPORT_TID */
	int32_t table;	/* the map exec_args */
	int32_t out;	/* the pipe's end, O_NONBLOCK */
	int32_t stop;	/* an eventfd that ends the thread */
	int32_t ping;	/* an eventfd of which each write is worth one turn */
	int32_t alert;	/* an eventfd that wakes the supervisor, or -1 */
	int32_t scarce; /* from this number on few fds are left: others need some */
	int32_t unused;
	volatile struct counters *counters;
	const char *words; /* each ends with a NUL, the last with two */
	const char *settling_words; /* the same; they matter while a container is unsettled */
};

struct packet {
	struct fanotify_event_metadata event;
	struct exec_record record;
};

struct turnstile {
	struct turnstile_setup setup;
	pthread_t thread;
	int epoll;
	size_t kept; /* bytes of `packet` that did not fit into the pipe */
	struct packet packet;
};

static int look_up(int map, const void *key, void *value)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_fd = map;
	attr.key = (uintptr_t)key;
	attr.value = (uintptr_t)value;
	return syscall(__NR_bpf, BPF_MAP_LOOKUP_ELEM, &attr, sizeof(attr));
}

static int is_word(const char *words, const char *argument)
{
	for (; *words; words += strlen(words) + 1)
		if (strcmp(words, argument) == 0)
			return 1;
	return 0;
}

static int matters(const struct turnstile_setup *setup, const char *argument)
{
	return is_word(setup->words, argument) ||
	       (setup->counters->unsettled && is_word(setup->settling_words, argument));
}

/* Are the arguments all there, and none of them a word that matters? */
static int needs_no_hold(const struct exec_record *record, const struct turnstile_setup *setup)
{
	const char *at = record->args, *end = at + record->args_size;

	if (!record->tgid || record->flags & (EXEC_TRUNCATED | EXEC_INCOMPLETE))
		return 0;
	if (record->args_size > sizeof(record->args) || (at < end && end[-1]))
		return 0;
	for (; at < end; at += strlen(at) + 1)
		if (matters(setup, at))
			return 0;
	return 1;
}

/* The size of what is known of the event's execve: 0 for nothing. */
static size_t record_of(struct turnstile *t)
{
	struct exec_record *record = &t->packet.record;
	uint32_t tid = t->packet.event.pid;

	if (look_up(t->setup.table, &tid, record) || record->args_size > sizeof(record->args))
		return 0;
	return offsetof(struct exec_record, args) + record->args_size;
}

static void let_go(struct turnstile *t)
{
	struct fanotify_response answer = {.fd = t->packet.event.fd, .response = FAN_ALLOW};

	while (write(t->setup.group, &answer, sizeof(answer)) < 0 && errno == EINTR)
		;
	close(t->packet.event.fd); /* after the answer: the kernel knows the event by this number */
}

static void listen_to(struct turnstile *t, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};

	epoll_ctl(t->epoll, EPOLL_CTL_MOD, fd, &event);
}

static void breathe(void)
{
	const struct timespec breath = {.tv_nsec = BREATH_NS};

	nanosleep(&breath, NULL);
}

/* Write what is kept. While that does not fit, read no more. */
static void flush(struct turnstile *t)
{
	if (write(t->setup.out, &t->packet, t->kept) >= 0)
		t->kept = 0;
	else if (errno != EAGAIN)
		breathe(); /* ENOMEM: epoll says at once that there is room */
	listen_to(t, t->setup.group, t->kept ? 0 : EPOLLIN);
	listen_to(t, t->setup.out, t->kept ? EPOLLOUT : 0);
}

static void pass_on(struct turnstile *t, size_t size)
{
	if (write(t->setup.out, &t->packet, size) >= 0)
		return;
	t->kept = size;
	flush(t);
}

/* The kernel denies what is read while no fd is free: wait a moment for one. */
static void await_fds(struct turnstile *t)
{
	for (int i = 0; i < BREATHS; i++) {
		int lowest = dup(t->setup.stop);

		if (lowest >= 0)
			close(lowest);
		if (lowest >= 0 && lowest < t->setup.scarce)
			return;
		breathe();
	}
}

static void pass_error(struct turnstile *t)
{
	int32_t error = errno;

	if (error != EAGAIN && error != EINTR && write(t->setup.out, &error, sizeof(error)) < 0)
		return; /* the pipe is full: those who read it have enough to tell */
}

/* Count a hold, before its answer can be; the supervisor says that it rests, then looks at the count. */
static void count_hold(struct turnstile *t)
{
	t->setup.counters->holds++;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (t->setup.counters->resting)
		eventfd_write(t->setup.alert, 1);
}

static void read_event(struct turnstile *t)
{
	struct fanotify_event_metadata *event = &t->packet.event;
	size_t size;

	await_fds(t);
	if (read(t->setup.group, event, sizeof(*event)) != sizeof(*event)) {
		pass_error(t);
		return;
	}
	if (event->fd < 0) { /* an overflow */
		pass_on(t, sizeof(*event));
		return;
	}
	if (t->setup.counters->top < (uint64_t)event->fd)
		t->setup.counters->top = event->fd;
	size = record_of(t);
	if (size && needs_no_hold(&t->packet.record, &t->setup)) {
		let_go(t);
		return;
	}
	count_hold(t);
	pass_on(t, sizeof(*event) + size);
}

static void *run(void *argument)
{
	struct turnstile *t = argument;
	struct epoll_event ready[SOURCES];

	for (;;) {
		int count = epoll_wait(t->epoll, ready, SOURCES, -1);

		for (int i = 0; i < count; i++) {
			if (ready[i].data.fd == t->setup.stop)
				return NULL;
			if (ready[i].data.fd == t->setup.out)
				flush(t);
			else if (ready[i].data.fd == t->setup.group && !t->kept)
				read_event(t);
		}
		t->setup.counters->turns++;
	}
}

static int add(int epoll, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/* The thread takes no signals: they are for those who handle them. */
static int start_thread(struct turnstile *t)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&t->thread, NULL, run, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}

static int set_up(struct turnstile *t)
{
	const struct turnstile_setup *s = &t->setup;

	t->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (t->epoll < 0)
		return errno;
	if (add(t->epoll, s->group, EPOLLIN) || add(t->epoll, s->stop, EPOLLIN) || add(t->epoll, s->out, 0) ||
	    add(t->epoll, s->ping, EPOLLIN | EPOLLET))
		return errno;
	s->counters->turns++;
	return start_thread(t);
}

/* Start the thread; fds, counters and words stay the caller's, until after turnstile_stop(). NULL: errno. */
struct turnstile *turnstile_start(const struct turnstile_setup *setup)
{
	struct turnstile *t = calloc(1, sizeof(*t));
	int error;

	if (!t)
		return NULL;
	t->setup = *setup;
	error = set_up(t);
	if (!error)
		return t;
	if (t->epoll >= 0)
		close(t->epoll);
	t->setup.counters->turns = 0; /* nobody is to wait for its turns */
	free(t);
	errno = error;
	return NULL;
}

/* Call it once `stop` is readable: waits until the thread is gone. An event that did not fit into
 * the pipe stays unanswered, like those in it. Returns its fd, or -1. */
int turnstile_stop(struct turnstile *t)
{
	int left;

	pthread_join(t->thread, NULL);
	left = t->kept ? t->packet.event.fd : -1;
	close(t->epoll);
	free(t);
	return left;
}
