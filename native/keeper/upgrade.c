// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "door.h"

#define STATE_WORDS 19

extern char **environ;

static void inherit(int fd)
{
	if (fd >= 0)
		fcntl(fd, F_SETFD, 0);
}

static void inherit_all(struct keep *k, const struct records *r)
{
	const int fds[] = {k->group, k->guard, k->events, k->memory, k->alert, r->table, r->queue, r->pending};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		inherit(fds[i]);
	for (struct slot *slot = table_first(k->table); slot; slot = table_next(k->table, slot))
		inherit(table_number(k->table, slot));
}

void upgrade(struct keep *k, const struct records *r, int program)
{
	const int64_t state[STATE_WORDS] = {
		LAYOUT,	    k->kind,	 k->group,	k->guard,     k->events,     k->memory,
		r->table,   r->queue,	 r->pending,	(int64_t)k->settings.hold, (int64_t)k->settings.hang,
		k->settings.replaced,	 k->settings.absent_denies,   k->worker,      k->settling,    k->owed,
		k->missed,  k->welcome,	 k->alert};
	static char text[STATE_WORDS + OWN_MAX][24];
	char *words[STATE_WORDS + OWN_MAX + 3] = {"startgate-keeper", AGAIN_OPTION};
	int at = 0;

	for (int i = 0; i < STATE_WORDS; i++)
		snprintf(text[at++], sizeof(text[0]), "%" PRId64, state[i]);
	for (unsigned i = 0; i < k->own_count; i++)
		snprintf(text[at++], sizeof(text[0]), "%d", k->own[i]);
	for (int i = 0; i < at; i++)
		words[i + 2] = text[i];
	inherit_all(k, r);
	fexecve(program, words, environ);
	say(k->name, "not upgraded: %s", strerror(errno));
	close(program);
}

/* A reader that was executed away may have read an event, and not entered it. Its fd is closed already. */
static void sweep(struct keep *k)
{
	static uint8_t entered[SLOTS];

	for (struct slot *slot = table_first(k->table); slot; slot = table_next(k->table, slot))
		entered[table_number(k->table, slot)] = 1;
	for (int number = 0; number < SLOTS; number++) {
		struct fanotify_response response = {.fd = number, .response = FAN_ALLOW};

		if (!entered[number] && write(k->group, &response, sizeof(response)) > 0)
			k->missed++;
	}
}

static void restore_worker(struct keep *k, int events, enum worker_state worker)
{
	k->worker = worker;
	k->next = 0; /* look at all deadlines again */
	k->awaited = now() + k->settings.hang;
	k->events = events;
	if (events >= 0)
		keep_watch(k, events, EPOLLIN | EPOLLOUT);
	k->wants_out = 1;
}

_Noreturn void go_on(int count, char **words)
{
	static struct keep keep;
	static struct records records;
	int64_t state[STATE_WORDS];

	say_to_guard_again();
	if (count < STATE_WORDS || atoi(words[0]) != LAYOUT) {
		say("keeper", "this version can't go on with what another one holds: all is let go");
		_exit(1);
	}
	for (int i = 0; i < STATE_WORDS; i++)
		state[i] = strtoll(words[i], NULL, 10);
	keep.kind = state[1] == COMMANDS ? COMMANDS : CONTAINERS;
	keep.name = keep.kind == COMMANDS ? "door" : "yard";
	keep.group = (int)state[2];
	keep.guard = (int)state[3];
	keep.memory = (int)state[5];
	keep.alert = (int)state[18];
	records.table = (int)state[6];
	records.queue = (int)state[7];
	records.pending = (int)state[8];
	keep.settings.hold = (uint64_t)state[9];
	keep.settings.hang = (uint64_t)state[10];
	keep.settings.replaced = (int)state[11];
	keep.settings.absent_denies = (int)state[12];
	if (keep_open(&keep)) {
		say(keep.name, "can't go on: %s", strerror(errno));
		_exit(1); /* the kernel lets all go */
	}
	keep.settling = (uint32_t)state[14];
	keep.owed = (uint32_t)state[15];
	keep.missed = (uint32_t)state[16];
	keep.welcome = (int)state[17];
	for (int i = STATE_WORDS; i < count && keep.own_count < OWN_MAX; i++)
		keep.own[keep.own_count++] = atoi(words[i]);
	restore_worker(&keep, (int)state[4], (enum worker_state)state[13]);
	if (keep.kind == COMMANDS)
		door(&keep, &records);
	sweep(&keep);
	yard(&keep, &records);
}
