/* SPDX-License-Identifier: Apache-2.0 */
/* What BPF recorded of a held execve: exec_args, ig_fa_records, and who is held where pids are not the host's. */
#ifndef KEEPER_RECORDS_H
#define KEEPER_RECORDS_H

#include <stddef.h>
#include <stdint.h>

#include <linux/types.h>

#include "../../bpf/exec_record.h"

struct records {
	int table;   /* fd of the map exec_args, or -1 */
	int queue;   /* fd of the map ig_fa_records, or -1 */
	int pending; /* fd of the program pending_tid where events' pids are not the host's, or -1 */
};

/* The pid behind an event in the initial pid namespace; 0: not found. Call it before any answer. */
int32_t records_host_pid(const struct records *records, int group, int event_fd, int32_t pid);
/* Take the record of one event; returns the bytes of it that are used, 0 for none. */
size_t records_take(const struct records *records, int32_t tid, struct exec_record *record);
/* Does the execve need no hold? Only if its arguments are all there, and none is a command's name. */
int records_need_no_hold(const struct exec_record *record, int settling);
/* Which of `owed` such an execve is; all of them where it is not known. */
uint32_t records_owed(const struct exec_record *record, size_t size);

#endif
