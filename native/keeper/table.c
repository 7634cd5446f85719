// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "table.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define NONE (-1)
#define TABLE_SIZE ((size_t)SLOT_SIZE * (SLOTS + 1))

static uint32_t some_number(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint32_t)time.tv_nsec >> 8;
}

int table_create(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd >= 0 && ftruncate(fd, (off_t)TABLE_SIZE)) { /* sparse: a page costs once it is used */
		close(fd);
		return -1;
	}
	return fd;
}

struct table *table_map(int fd)
{
	void *memory = mmap(NULL, TABLE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct table *table = memory;

	if (memory == MAP_FAILED)
		return NULL;
	if (!table->layout) {
		table->oldest = table->newest = NONE;
		table->first = some_number();
		table->layout = LAYOUT;
	}
	if (table->layout == LAYOUT)
		return table;
	table_unmap(table);
	errno = EPROTO;
	return NULL;
}

void table_unmap(struct table *table)
{
	munmap(table, TABLE_SIZE);
}

struct slot *table_slot(struct table *table, int number)
{
	return (struct slot *)(void *)((char *)table + (size_t)SLOT_SIZE * ((size_t)number + 1));
}

int table_number(const struct table *table, const struct slot *slot)
{
	return (int)(((const char *)slot - (const char *)table) / SLOT_SIZE) - 1;
}

uint32_t table_id(struct table *table, int number)
{
	return (table->first + table_slot(table, number)->generation) << 16 | (uint32_t)number;
}

struct slot *table_find(struct table *table, uint32_t id)
{
	uint32_t number = id & 0xffff;
	struct slot *slot;

	if (number >= SLOTS)
		return NULL;
	slot = table_slot(table, (int)number);
	return slot->live && table_id(table, (int)number) == id ? slot : NULL;
}

struct slot *table_add(struct table *table, int number)
{
	struct slot *slot = table_slot(table, number);
	uint32_t generation = slot->generation;

	memset(slot, 0, sizeof(*slot));
	slot->generation = generation;
	slot->live = 1;
	slot->next = NONE;
	slot->prev = table->newest;
	if (table->newest != NONE)
		table_slot(table, table->newest)->next = number;
	else
		table->oldest = number;
	table->newest = number;
	table->live++;
	table->unsent++;
	return slot;
}

void table_remove(struct table *table, struct slot *slot)
{
	slot->live = 0;
	slot->generation++;
	table->live--;
	if (!slot->sent)
		table->unsent--;
	if (slot->prev != NONE)
		table_slot(table, slot->prev)->next = slot->next;
	else
		table->oldest = slot->next;
	if (slot->next != NONE)
		table_slot(table, slot->next)->prev = slot->prev;
	else
		table->newest = slot->prev;
}

struct slot *table_first(struct table *table)
{
	return table->oldest == NONE ? NULL : table_slot(table, table->oldest);
}

struct slot *table_next(struct table *table, const struct slot *slot)
{
	return slot->next == NONE ? NULL : table_slot(table, slot->next);
}

void table_unsend(struct table *table)
{
	for (struct slot *slot = table_first(table); slot; slot = table_next(table, slot))
		slot->sent = 0;
	table->unsent = table->live;
}

void table_sent(struct table *table, struct slot *slot)
{
	if (!slot->sent)
		table->unsent--;
	slot->sent = slot->was_sent = 1;
}
