// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "keep.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "channel.h"

#define MS 1000000ull
#define NEVER UINT64_MAX
#define EXTENSION_MAX 5000 /* ms */
#define SPARE_FDS 48	   /* for all that is no held event: 36 in the yard, those that are being read included */
#define FEWEST 8
#define HEARD_AT_ONCE 64   /* messages, until others have a turn */

uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000ull + (uint64_t)time.tv_nsec;
}

int keep_watch(struct keep *k, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};

	return epoll_ctl(k->epoll, EPOLL_CTL_ADD, fd, &event);
}

int keep_open(struct keep *k)
{
	struct rlimit limit;

	pthread_mutex_init(&k->lock, NULL);
	k->table = table_map(k->memory);
	k->epoll = epoll_create1(EPOLL_CLOEXEC);
	k->next = NEVER;
	k->events = -1;
	k->worker = k->settings.replaced ? AWAITING : ABSENT;
	k->awaited = now() + k->settings.hang;
	k->most = SLOTS / 2;
	if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < k->most + SPARE_FDS)
		k->most = limit.rlim_cur > SPARE_FDS + FEWEST ? (uint32_t)limit.rlim_cur - SPARE_FDS : FEWEST;
	return k->table && k->epoll >= 0 ? 0 : -1;
}

void stay_in_memory(void)
{
	/* Not MCL_FUTURE: where RLIMIT_MEMLOCK is short, the next yard's table could not be mapped. May fail. */
	if (mlockall(MCL_CURRENT | MCL_ONFAULT))
		errno = 0;
}

int keep_is_own(const struct keep *k, int32_t pid)
{
	for (unsigned i = 0; i < k->own_count; i++)
		if (k->own[i] == pid)
			return 1;
	return 0;
}

void keep_answer(struct keep *k, int number, int denied)
{
	struct fanotify_response response = {.fd = number, .response = denied ? FAN_DENY : FAN_ALLOW};

	while (write(k->group, &response, sizeof(response)) < 0) {
		if (errno == EINTR)
			continue;
		if (errno != ENOENT) /* it was killed while it was held */
			say(k->name, "an answer was not taken: %s", strerror(errno));
		break;
	}
	close(number); /* after the answer: the kernel knows the event by this number */
}

static void settle(struct keep *k, struct slot *slot, int denied)
{
	int number = table_number(k->table, slot);

	keep_answer(k, number, denied);
	table_remove(k->table, slot);
}

/* What is said to the worker. */

static int send_parts(struct keep *k, struct iovec *parts, size_t count, int fd)
{
	if (k->events < 0)
		return -1;
	if (!channel_send(k->events, parts, count, fd))
		return 0;
	k->full = errno == EAGAIN; /* EPOLLOUT tells of nothing else */
	return -1;
}

static int send_short(struct keep *k, uint32_t type, uint32_t id, uint32_t flags)
{
	struct to_worker message = {.type = type, .id = id, .flags = flags};
	struct iovec part = {.iov_base = &message, .iov_len = sizeof(message)};

	return send_parts(k, &part, 1, -1);
}

static int send_hold(struct keep *k, struct slot *slot)
{
	int number = table_number(k->table, slot);
	struct to_worker message = {
		.type = HOLD,
		.id = table_id(k->table, number),
		.pid = slot->pid,
		.flags = (slot->was_sent ? AGAIN : 0u) | (slot->denies ? DENIES : 0u),
		.mask = slot->mask,
		.since = slot->since,
		.due = slot->due,
		.record = slot->record,
		.path = slot->path,
	};
	struct iovec parts[2] = {
		{.iov_base = &message, .iov_len = sizeof(message)},
		{.iov_base = slot->data, .iov_len = (size_t)slot->record + slot->path},
	};

	if (send_parts(k, parts, 2, k->kind == CONTAINERS ? number : -1))
		return -1;
	table_sent(k->table, slot);
	return 0;
}

static void listen_to_worker(struct keep *k)
{
	struct epoll_event event = {.data.fd = k->events};
	int wants = k->full && (k->table->unsent || k->welcome);

	if (k->events < 0 || wants == k->wants_out)
		return;
	event.events = EPOLLIN | (wants ? EPOLLOUT : 0u);
	epoll_ctl(k->epoll, EPOLL_CTL_MOD, k->events, &event);
	k->wants_out = wants;
}

static void tell_gap(struct keep *k)
{
	if (k->missed && k->worker == PRESENT && !send_short(k, GAP, k->missed, 0))
		k->missed = 0;
}

static void send_unsent(struct keep *k)
{
	struct slot *slot = table_first(k->table);

	k->full = 0;
	for (; k->worker == PRESENT && slot && k->table->unsent; slot = table_next(k->table, slot))
		if (!slot->sent && send_hold(k, slot))
			break;
	if (k->welcome && !k->table->unsent && !send_short(k, WELCOME, 0, 0))
		k->welcome = 0;
	listen_to_worker(k);
}

/* Who decides where the worker does not. */

static void set_due(struct keep *k, struct slot *slot, uint64_t due)
{
	slot->due = due < slot->latest ? due : slot->latest;
	if (slot->due < k->next)
		k->next = slot->due;
}

static void expire(struct keep *k, struct slot *slot)
{
	uint32_t id = table_id(k->table, table_number(k->table, slot));
	int denied = slot->denies, told = slot->sent;

	settle(k, slot, denied);
	if (told && !send_short(k, EXPIRED, id, denied ? DENIES : 0u))
		k->unheard++;
	else /* a worker that is gone may have been told of it, and may not have seen to it */
		k->missed++;
}

static void expire_all(struct keep *k)
{
	struct slot *slot;

	while ((slot = table_first(k->table)))
		expire(k, slot);
	k->next = NEVER;
}

/* Nobody is asked until a worker speaks. */
static void go_on_alone(struct keep *k)
{
	k->worker = ABSENT;
	if (k->table->live)
		say(k->name, "no worker: what waited was answered without one");
	expire_all(k);
}

/* The worker can't be relied on any more. What it left unanswered is the next one's, who is given time to come. */
static void lose_worker(struct keep *k)
{
	uint64_t until = now() + k->settings.hang;

	if (k->events >= 0)
		close(k->events);
	k->events = -1;
	k->asked = 0;
	k->wants_out = 0;
	k->missed += k->unheard;
	k->unheard = 0;
	table_unsend(k->table);
	if (!k->settings.replaced) {
		go_on_alone(k);
		return;
	}
	if (k->worker == PRESENT) {
		k->worker = AWAITING;
		k->awaited = until;
	}
	for (struct slot *slot = table_first(k->table); slot; slot = table_next(k->table, slot))
		set_due(k, slot, until);
}

static void take_worker(struct keep *k, int fd)
{
	uint64_t until = now() + k->settings.hold;

	if (k->events >= 0)
		lose_worker(k);
	k->events = fd;
	k->worker = PRESENT;
	k->asked = 0;
	k->wants_out = 0;
	k->welcome = 1;
	keep_watch(k, fd, EPOLLIN);
	for (struct slot *slot = table_first(k->table); slot; slot = table_next(k->table, slot))
		set_due(k, slot, until);
	send_unsent(k);
	tell_gap(k);
}

/* The guard decides whether it hangs, or gets no CPU: that takes looking into /proc. */
static void silent(struct keep *k)
{
	control_send(k->guard, SILENT, 0, -1);
	k->asked = now();
}

/* Asked only while it owes something: so an idle host stays idle. */
static void ask_for_life(struct keep *k, uint64_t at)
{
	struct slot *oldest = table_first(k->table);

	if (k->worker != PRESENT || !oldest || at - oldest->since < k->settings.hang / 8 ||
	    (!k->asked && at - k->heard < k->settings.hang / 8))
		return;
	if (!k->asked) {
		k->asked = at;
		send_short(k, PING, 0, 0);
	} else if (at - k->asked >= k->settings.hang / 2) { /* the next one needs time, too */
		silent(k);
	}
}

static void expire_due(struct keep *k, uint64_t at)
{
	struct slot *slot = table_first(k->table), *following;

	k->next = NEVER;
	for (; slot; slot = following) {
		following = table_next(k->table, slot);
		if (slot->due <= at)
			expire(k, slot);
		else if (slot->due < k->next)
			k->next = slot->due;
	}
}

int keep_due(struct keep *k)
{
	uint64_t at = now(), until;

	if (k->next <= at)
		expire_due(k, at);
	if (k->worker == AWAITING && k->awaited <= at)
		go_on_alone(k);
	ask_for_life(k, at);
	if ((k->table->unsent || k->welcome) && !k->wants_out)
		send_unsent(k);
	tell_gap(k);
	until = k->next;
	if (k->worker == AWAITING && k->awaited < until)
		until = k->awaited;
	if (k->worker == PRESENT && k->table->live && at + k->settings.hang / 8 < until)
		until = at + k->settings.hang / 8;
	if (until == NEVER)
		return -1;
	return until > at ? (int)((until - at) / MS) + 1 : 0;
}

/* What arrives. */

void keep_missed(struct keep *k)
{
	k->missed++;
}

void keep_make_room(struct keep *k)
{
	if (k->table->live >= k->most)
		expire(k, table_first(k->table));
}

void keep_wake_guard(struct keep *k)
{
	if (!k->table->resting) /* it sleeps while nothing is held */
		return;
	k->table->resting = 0;
	eventfd_write(k->alert, 1);
}

static void enter(struct keep *k, const struct arrival *a, int denies)
{
	struct slot *slot = table_add(k->table, a->number);
	uint64_t hold = k->settings.hold, hang = k->settings.hang;

	keep_wake_guard(k);
	slot->mask = a->mask;
	slot->pid = a->pid;
	slot->seen = a->seen;
	slot->since = now();
	slot->latest = slot->since + (hold > hang ? hold : hang) + 900 * MS;
	slot->denies = denies ? 1 : 0;
	slot->record = (uint16_t)a->record_size;
	slot->path = (uint16_t)a->path_size;
	memcpy(slot->data, a->record, a->record_size);
	memcpy(slot->data + a->record_size, a->path, a->path_size);
	set_due(k, slot, k->worker == AWAITING ? k->awaited : slot->since + hold);
	if (k->worker == PRESENT && k->table->unsent == 1)
		send_hold(k, slot); /* else those before it come first */
	listen_to_worker(k);
}

void keep_arrived(struct keep *k, const struct arrival *a)
{
	int owed = (a->owed & k->owed) != 0, denies = owed && (k->worker == PRESENT || k->settings.absent_denies);

	if (k->worker == ABSENT || a->number >= SLOTS) {
		k->missed++;
		keep_answer(k, a->number, denies);
		return;
	}
	enter(k, a, denies);
}

/* What the worker says. */

static void own(struct keep *k, int32_t pid)
{
	for (unsigned i = 0; pid < 0 && i < k->own_count; i++)
		if (k->own[i] == -pid)
			k->own[i--] = k->own[--k->own_count];
	if (pid <= 0 || keep_is_own(k, pid))
		return;
	if (k->own_count == OWN_MAX) /* the oldest is over, most likely */
		memmove(k->own, k->own + 1, sizeof(k->own[0]) * --k->own_count);
	k->own[k->own_count++] = pid;
	/* It may be held already: by us, for somebody who waits for it. */
	for (struct slot *slot = table_first(k->table), *following; slot; slot = following) {
		following = table_next(k->table, slot);
		if (slot->seen == pid && !slot->sent)
			settle(k, slot, 0);
	}
}

static void change_hold(struct keep *k, struct slot *slot, const struct to_keeper *m)
{
	if (m->ops & FLAG)
		slot->denies = m->response == FAN_DENY;
	if (m->ops & EXTEND && !slot->extended) {
		slot->extended = 1;
		slot->due += (m->extend_ms < EXTENSION_MAX ? m->extend_ms : EXTENSION_MAX) * MS;
	}
	if (m->ops & ANSWER)
		settle(k, slot, m->response == FAN_DENY);
}

static void act(struct keep *k, const struct to_keeper *m)
{
	struct slot *slot;

	/* Before the answer: what it lets go may come back at once. */
	if (m->ops & MINE)
		own(k, m->pid);
	if (m->ops & SETTLING)
		k->settling = m->settling;
	if (m->ops & OWED)
		k->owed = m->owed;
	if (m->ops & (ANSWER | FLAG | EXTEND) && (slot = table_find(k->table, m->id)))
		change_hold(k, slot, m);
}

/* Any word is a sign of life. */
static void heard(struct keep *k)
{
	k->heard = now();
	k->asked = 0;
	k->unheard = 0;
	if (k->worker == ABSENT) {
		k->worker = PRESENT;
		tell_gap(k);
	}
}

void keep_hear(struct keep *k, uint32_t events)
{
	for (int i = 0; events & ~(uint32_t)EPOLLOUT && i < HEARD_AT_ONCE; i++) {
		struct to_keeper message;
		int fd, got = channel_receive(k->events, &message, sizeof(message), &fd);

		if (fd >= 0)
			close(fd);
		if (got == 0 || (got < 0 && errno != EAGAIN && errno != EPROTO)) {
			lose_worker(k);
			return;
		}
		if (got < 0 && errno == EAGAIN)
			break;
		heard(k);
		if (got > 0)
			act(k, &message);
	}
	send_unsent(k);
	tell_gap(k);
}

/* The worker's socket stays: it may speak again. Who has not asked it asks now, for that answer; else one start
   would wait for it at the door, and again at the yard. */
static void hear_that_it_hangs(struct keep *k)
{
	uint64_t at = now();

	if (k->worker != PRESENT || (!k->asked && at - k->heard < k->settings.hang / 2))
		return;
	if (!k->asked && !send_short(k, PING, 0, 0))
		k->asked = at;
	if (k->asked)
		go_on_alone(k);
}

void keep_obey(struct keep *k, const struct control *control, int fd)
{
	switch (control->what) {
	case WORKER_EVENTS:
		if (fd >= 0)
			take_worker(k, fd);
		return; /* it is ours now */
	case WORKER_GONE:
		if (k->events >= 0)
			keep_hear(k, EPOLLIN); /* what it said last counts */
		if (k->events >= 0)
			lose_worker(k);
		break;
	case ALONE:
		hear_that_it_hangs(k);
		break;
	case OWN_PROCESS:
		own(k, control->value);
		break;
	case CHECK:
		control_send(k->guard, CHECKED, control->value, -1);
		break;
	default:
		break;
	}
	if (fd >= 0)
		close(fd);
}
