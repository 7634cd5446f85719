/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the keeper's processes and the worker say to each other: SOCK_SEQPACKET sockets, structs of one
 * size, at most one fd with each, never a path that the other side is to open.
 *
 * This is the only definition: src/startgate/keeper/protocol.py mirrors it, and
 * tests/unit/test_protocol.py fails when the two drift apart.
 */
#ifndef KEEPER_PROTOCOL_H
#define KEEPER_PROTOCOL_H

#include <stdint.h>

enum { KEEPER_PROTOCOL = 1 };

/* The fanotify groups. */
enum group_kind { COMMANDS = 1, CONTAINERS = 2 };

/* From the door or the yard to the worker. */
enum to_worker_type {
	HOLD = 1, /* a task is held: `record` bytes of its exec record and `path` bytes of a path follow */
	EXPIRED,  /* the deadline answered the hold `id` */
	GAP,	  /* `id` events were answered that no worker has seen */
	PING,	  /* are you there? */
	WELCOME,  /* what came before this was held before the worker was there */
};

enum to_worker_flags {
	AGAIN = 1,  /* another worker was told of the hold, and left it unanswered */
	DENIES = 2, /* HOLD: its deadline will deny; EXPIRED: it has denied */
};

struct to_worker {
	uint32_t type;
	uint32_t id; /* the event fd's number, and how often that was used before, times 2^16 */
	int32_t pid; /* in the initial pid namespace: COMMANDS the thread's, CONTAINERS the process's */
	uint32_t flags;
	uint64_t mask;	/* fanotify's */
	uint64_t since; /* CLOCK_MONOTONIC, ns: when the event was read */
	uint64_t due;	/* when the deadline answers */
	uint32_t record;
	uint32_t path;
};

/* From the worker to the door or the yard: a set of operations. */
enum to_keeper_ops {
	ANSWER = 1,    /* answer the hold with `response` */
	FLAG = 2,      /* its deadline is to answer with `response` */
	EXTEND = 4,    /* its deadline comes `extend_ms` later; once */
	MINE = 8,      /* what process `pid` does is never held; a negative one: it is, again */
	PONG = 16,     /* I am here */
	SETTLING = 32, /* hold `start` and `delete`, too, while `settling` is not 0 */
	OWED = 64,     /* what a deadline denies: `owed` */
};

/* The bits of `owed`: a verdict is owed before these are let go. */
enum owed { OWED_START = 1, OWED_EXEC = 2 };

struct to_keeper {
	uint32_t ops;
	uint32_t id;
	uint32_t response; /* FAN_ALLOW or FAN_DENY */
	int32_t pid;
	uint32_t extend_ms;
	uint32_t settling;
	uint32_t owed;
	uint32_t unused;
};

/* A mark, on a socket of its own: whoever asks waits for the errno, and for nobody else's marks. */
struct mark_request {
	uint64_t mask;
	uint32_t flags; /* of fanotify_mark(2); the fd that comes along is what to mark */
	uint32_t unused;
};

struct mark_reply {
	int32_t error;
};

/* Between the guard and each of the others. */
enum control_what {
	WORKER_EVENTS = 1, /* guard to door, yard: the socket of a new worker comes along */
	WORKER_MARKS,	   /* guard to door, yard: so does one for marks */
	WORKER_GONE,	   /* guard to door, yard: nobody is at the other end any more */
	OWN_PROCESS,	   /* guard to door, yard: `value` is a process of ours, see MINE */
	UPGRADE,	   /* guard to door, yard: execute the file that comes along */
	CHECK,		   /* guard to door, yard: are you there? */
	CHECKED,	   /* door, yard to guard: yes */
	SILENT,		   /* door, yard to guard: the worker gives no sign of life */
	HELLO,		   /* worker to guard: give me my sockets; `value` is KEEPER_PROTOCOL */
	READY,		   /* worker to guard: all marks are placed */
	YARD_HANGS,	   /* worker to guard: a mark is not answered */
	DOOR_EVENTS,	   /* guard to worker: these come along */
	DOOR_MARKS,
	YARD_EVENTS,
	YARD_MARKS,
	NEW_YARD, /* guard to worker: the marks of the yard are gone, a new one's sockets follow */
	OUTPUT,	  /* guard to worker: a socket comes along, each message of it is a line of output */
	ALONE,	  /* guard to door, yard: the worker hangs; go on without it until it speaks */
};

struct control {
	uint32_t what;
	int32_t value;
};

#endif
