// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "records.h"

#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "protocol.h"

#define ATTEMPTS 3

static const char *const STARTING[] = {"create", "run", "restore", NULL};
static const char *const OTHERS[] = {"exec", "kill", "pause", "resume", NULL};
static const char *const EXECUTING[] = {"exec", NULL};
/* They concern a container whose init is not known yet, or that waits for `start`. */
static const char *const SETTLING_WORDS[] = {"start", "delete", NULL};

static int bpf(int command, union bpf_attr *attr)
{
	return (int)syscall(__NR_bpf, command, attr, sizeof(*attr));
}

static int look_up(int map, const void *key, void *value, int command)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)map;
	attr.key = (uintptr_t)key;
	attr.value = (uintptr_t)value;
	return bpf(command, &attr);
}

static int32_t run(int program, int group, int event_fd)
{
	uint64_t context[2] = {(uint64_t)group, (uint64_t)event_fd};
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = (uint32_t)program;
	attr.test.ctx_in = (uintptr_t)context;
	attr.test.ctx_size_in = sizeof(context);
	return bpf(BPF_PROG_TEST_RUN, &attr) ? 0 : (int32_t)attr.test.retval;
}

int32_t records_host_pid(const struct records *records, int group, int event_fd, int32_t pid)
{
	if (records->pending < 0)
		return pid;
	for (int i = 0; i < ATTEMPTS; i++) { /* another thread's answer may change the list under the walk */
		int32_t found = run(records->pending, group, event_fd);

		if (found)
			return found;
	}
	return 0;
}

size_t records_take(const struct records *records, int32_t tid, struct exec_record *record)
{
	uint32_t key = (uint32_t)tid;

	if (!tid)
		return 0; /* and leave the queue to others: its next record is theirs, or skipped by them */
	if (records->queue >= 0) {
		/* One record for each event, in step. One of another task is of an event that was not read. */
		do
			if (look_up(records->queue, NULL, record, BPF_MAP_LOOKUP_AND_DELETE_ELEM))
				return 0;
		while (record->tid != key);
	} else if (records->table < 0 || look_up(records->table, &key, record, BPF_MAP_LOOKUP_ELEM)) {
		return 0;
	}
	if (!record->tgid || record->args_size > sizeof(record->args))
		return 0;
	return offsetof(struct exec_record, args) + record->args_size;
}

static int is_one_of(const char *const *words, const char *argument)
{
	for (; *words; words++)
		if (strcmp(*words, argument) == 0)
			return 1;
	return 0;
}

static int is_whole(const struct exec_record *record)
{
	return !(record->flags & (EXEC_TRUNCATED | EXEC_INCOMPLETE)) &&
	       (!record->args_size || !record->args[record->args_size - 1]);
}

int records_need_no_hold(const struct exec_record *record, int settling)
{
	const char *at = record->args, *end = at + record->args_size;

	if (!is_whole(record))
		return 0;
	for (; at < end; at += strlen(at) + 1)
		if (is_one_of(STARTING, at) || is_one_of(OTHERS, at) ||
		    (settling && is_one_of(SETTLING_WORDS, at)))
			return 0;
	return 1;
}

uint32_t records_owed(const struct exec_record *record, size_t size)
{
	const char *at = record->args, *end = at + record->args_size;
	uint32_t owed = 0;

	if (!size || !is_whole(record))
		return OWED_START | OWED_EXEC;
	for (; at < end; at += strlen(at) + 1) {
		if (is_one_of(STARTING, at))
			owed |= OWED_START;
		if (is_one_of(EXECUTING, at))
			owed |= OWED_EXEC;
	}
	return owed;
}
