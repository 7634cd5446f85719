/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the door and the yard have in common: one fanotify group, its holds with their deadlines, and
 * the worker that is asked. Nothing here waits; `lock` is for the yard, whose readers are threads.
 */
#ifndef KEEPER_KEEP_H
#define KEEPER_KEEP_H

#include <pthread.h>
#include <stdint.h>
#include <sys/fanotify.h>

#include "protocol.h"
#include "say.h"
#include "table.h"

#define OWN_MAX 64

enum worker_state {
	PRESENT,  /* it is asked */
	AWAITING, /* it is gone, and another one will come: what arrives is held for that, until `awaited` */
	ABSENT,	  /* nobody is asked: what arrives is answered at once */
};

struct settings {
	uint64_t hold; /* ns: no task is held longer */
	uint64_t hang; /* ns: a worker that is silent for so long hangs */
	int replaced;  /* a worker that is gone is replaced */
	int absent_denies; /* ABSENT: what is `owed` a verdict is denied */
};

struct keep {
	const char *name;
	enum group_kind kind;
	int group;
	int guard;  /* socket */
	int events; /* socket of the worker, or -1 */
	int epoll;
	int memory; /* memfd of the table */
	int alert;  /* an eventfd that wakes the guard */
	struct table *table;
	struct settings settings;
	pthread_mutex_t lock;
	enum worker_state worker;
	uint64_t awaited;
	uint64_t asked; /* when a PING went out that is not answered, or 0 */
	uint64_t heard; /* when the worker said a word */
	uint64_t next;	/* no deadline is before this */
	uint32_t missed; /* events that no worker was told of, since the last GAP */
	uint32_t unheard; /* EXPIREDs that the worker may not have heard: it has said nothing since */
	uint32_t settling, owed;
	uint32_t most; /* holds at once: with more, few fds would be left, and the kernel denies then */
	int32_t own[OWN_MAX];
	unsigned own_count;
	int full;      /* the socket: what is unsent is sent when it has room */
	int wants_out; /* epoll tells us of it */
	int welcome;   /* the worker is to be told once it has all that was held before it */
};

/* A read event, and what is known of it. */
struct arrival {
	int number; /* of its fd */
	int32_t pid;
	int32_t seen;
	uint64_t mask;
	const void *record;
	size_t record_size;
	const char *path;
	size_t path_size;
	uint32_t owed;
};

uint64_t now(void);
int keep_open(struct keep *keep);
/* Page out nothing that this process has by now. */
void stay_in_memory(void);
/* Something may be held from now on: the guard is to look after us. */
void keep_wake_guard(struct keep *keep);
int keep_watch(struct keep *keep, int fd, uint32_t events);
/* Answer an event that was read, and close its fd. */
void keep_answer(struct keep *keep, int number, int denied);
/* Is the process, by its pid in our namespace, ours, or the worker's? */
int keep_is_own(const struct keep *keep, int32_t pid);
/* Make room for one more event: what is held longest goes. */
void keep_make_room(struct keep *keep);
/* Hold it, or answer it, as it stands with the worker. */
void keep_arrived(struct keep *keep, const struct arrival *arrival);
/* The kernel answered an event that could not be read, or dropped some. */
void keep_missed(struct keep *keep);
/* The worker's socket is ready: hear it, or send it what did not fit. */
void keep_hear(struct keep *keep, uint32_t events);
/* Act on what the guard says, but for what is only the door's or the yard's. */
void keep_obey(struct keep *keep, const struct control *control, int fd);
/* Answer whose time is up; returns how long nothing is due, in ms; -1: ever. */
int keep_due(struct keep *keep);

#endif
