/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel types that the programs touch, and of each only the fields used.
 * CO-RE relocates them against the running kernel's BTF, so that no BTF dump is
 * needed at build time.
 */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

#include <linux/bpf.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct list_head {
	struct list_head *next, *prev;
};

struct upid {
	int nr;
};

struct pid {
	struct upid numbers[1]; /* [0] is the initial pid namespace's */
};

struct fsnotify_event {
	struct list_head list;
};

struct fanotify_event {
	struct fsnotify_event fse;
	struct pid *pid;
};

struct fanotify_perm_event {
	struct fanotify_event fae;
	int fd;
};

struct fanotify_group_private_data {
	struct list_head access_list;
};

struct fsnotify_group {
	struct fanotify_group_private_data fanotify_data;
};

struct file {
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

typedef struct {
	unsigned int val;
} kuid_t;

struct user_namespace {
	int level;
};

typedef struct {
	__u64 val; /* cap[2] before Linux 6.3: the same bytes */
} kernel_cap_t;

struct cred {
	kuid_t euid;
	kernel_cap_t cap_effective;
	struct user_namespace *user_ns;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
	unsigned int flags;
	int group_exit_code;
};

struct task_struct {
	int pid;
	int tgid;
	int exit_code;
	struct task_struct *real_parent;
	const struct cred *cred;
	struct files_struct *files;
	struct signal_struct *signal;
};

struct trace_entry {
	int pid;
};

struct trace_event_raw_sys_enter {
	struct trace_entry ent;
	unsigned long args[6];
};

struct trace_event_raw_mark_victim {
	struct trace_entry ent;
	int pid;
};

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long di;
	unsigned long ax;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	unsigned long long regs[31];
};
struct pt_regs {
	struct user_pt_regs user_regs;
};
#else
#error "startgate's BPF programs know x86 and arm64: add the register names of this architecture"
#endif

#pragma clang attribute pop

#endif
