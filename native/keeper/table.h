/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of holds: permission events that were read and are not answered.
 *
 * It lives in a memfd. So it survives an execve (an upgrade of the keeper), and the guard sees what a yard
 * that is stuck was holding. A slot's index is the number of the event's fd: the kernel knows the event by
 * that number alone (fanotify_write()).
 */
#ifndef KEEPER_TABLE_H
#define KEEPER_TABLE_H

#include <stddef.h>
#include <stdint.h>

#define LAYOUT 2 /* of the table, and of what an upgrade hands over: another one can't be gone on with */
#define SLOTS 16384
#define SLOT_SIZE 8192

struct slot {
	uint64_t mask;
	uint64_t since;
	uint64_t due;
	uint64_t latest; /* `due` is never put off beyond this, but for one EXTEND */
	uint32_t generation;
	int32_t pid;
	int32_t seen; /* the same in our pid namespace */
	int32_t next, prev; /* slots in the order of arrival; -1: none */
	uint16_t record, path; /* bytes of each in `data`, in this order */
	uint8_t live;
	uint8_t sent;	  /* to the worker that is there now */
	uint8_t was_sent; /* to any worker */
	uint8_t denies;	  /* what the deadline answers */
	uint8_t extended;
	char data[];
};

#define SLOT_ROOM (SLOT_SIZE - offsetof(struct slot, data))

struct table {
	uint32_t layout;
	uint32_t live;
	uint32_t unsent;
	uint32_t resting; /* the guard wants to be woken by the next hold */
	uint32_t taken;	  /* events that were read, ever: tells a yard that is busy from one that hangs */
	uint32_t first;	  /* generation; a late answer to a table before this one is none to this one */
	int32_t oldest, newest;
};

/* Make a memfd for a table; -1 and errno where there is none to be had. */
int table_create(const char *name);
/* Map it; an empty one is made ready. NULL: errno (EPROTO: it has another layout). */
struct table *table_map(int fd);
void table_unmap(struct table *table);
struct slot *table_slot(struct table *table, int number);
uint32_t table_id(struct table *table, int number);
/* The live slot of an id, NULL where its hold was answered. */
struct slot *table_find(struct table *table, uint32_t id);
int table_number(const struct table *table, const struct slot *slot);
/* Enter a hold under a number, which is not live; last in order. */
struct slot *table_add(struct table *table, int number);
void table_remove(struct table *table, struct slot *slot);
/* In the order of arrival: the first, and the one after; NULL at the end. */
struct slot *table_first(struct table *table);
struct slot *table_next(struct table *table, const struct slot *slot);
/* All are to be sent again, to another worker. */
void table_unsend(struct table *table);
void table_sent(struct table *table, struct slot *slot);

#endif
