/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KEEPER_GUARD_H
#define KEEPER_GUARD_H

#include <stdint.h>
#include <sys/types.h>

#include "keep.h"
#include "records.h"
#include "starved.h"

#define MARK_SOCKETS 4
#define OLD_MAX 8
#define OOM_NEVER (-1000)

struct child {
	pid_t pid;     /* 0: none */
	int control;   /* socket, or -1 */
	int memory;    /* memfd of its table */
	struct table *table;
	uint64_t asked; /* when a CHECK went out that is not answered, or 0 */
	struct cpu_look look; /* since it was asked */
	uint64_t born;
};

/* The group of a yard that was thrown away, as long as something in it may wait. */
struct old_group {
	int group; /* -1: none */
	pid_t drainer;
	uint64_t look; /* when to look after it */
	int tries;
};

enum guard_state {
	FIRST,	  /* the first worker starts: if it can't, we end */
	STARTING, /* a next one starts */
	WORKING,  /* it holds */
};

struct guard {
	int epoll, signals, alert;
	pid_t program_pid;
	int program;	/* pid of the program that we keep for, then its pidfd; -1 */
	int commands;	/* fanotify groups: the door's, ours only until it runs */
	int containers; /* the yard's, too: never read, only flushed and answered */
	struct records records;
	struct settings settings;
	struct child door, yard, worker;
	pid_t scribe;
	int lines[2];	    /* to the scribe: its end, and the workers' */
	int said[2];	    /* what the door and the yard say: our end, and theirs */
	volatile int *torn; /* shared with it: a line is begun */
	struct old_group old[OLD_MAX];
	char **words;	/* our command line */
	char **command; /* the worker's; NULL: it is not ours to start */
	char *kept;	/* numbers of the fds that a worker inherits */
	int past;	/* we are the next version of a guard that ran before */
	int renew;	/* the door and the yard are still of that version */
	enum guard_state state;
	int introduced; /* the worker has its sockets */
	int failures, silences;
	int yard_deaths;    /* one after the other, soon after each one's start */
	uint32_t yard_taken; /* events that it had read when `unread_since` was set */
	/* CLOCK_MONOTONIC, ns; 0: never */
	uint64_t born, active, tick, restart, start_limit, stopping, watchdog, watchdog_period, unread_since, silent, second_look;
};

void unwatch_fd(struct guard *guard, int fd);
_Noreturn void guard_run(struct guard *guard);
void recover(struct guard *guard, const char *why);
void close_worker(struct guard *guard);
/* The yard is another one: who it is for, and whom it is not to hold. */
void introduce_new_yard(struct guard *guard);
/* options.c */
int guard_parse(struct guard *guard, int count, char **words);
void upgrade_guard(struct guard *guard);
/* Let the door and the yard be what is installed now: between two workers, so none's marks are cut off. */
void renew_keeps(struct guard *guard);
/* children.c */
int start_door(struct guard *guard);
int start_yard(struct guard *guard);
int start_scribe(struct guard *guard);
/* Let the scribe write what it has, for a moment. */
void end_scribe(struct guard *guard);
pid_t spawn_worker(struct guard *guard, int control);
void end_with_parent(pid_t parent);
/* Close all fds but stdin, stdout, stderr and these. */
void keep_only(const int *kept, size_t count);
/* Who is to be killed when memory is short: see proc(5). May fail. */
void write_oom_score(int score);
/* replace.c */
int unread_events(int group);
void replace_yard(struct guard *guard, const char *why);
void on_drained(struct guard *guard, pid_t pid);
void drain_old_groups(struct guard *guard, uint64_t at);
uint64_t next_drain(const struct guard *guard);

#endif
