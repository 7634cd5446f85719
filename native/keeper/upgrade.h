/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KEEPER_UPGRADE_H
#define KEEPER_UPGRADE_H

#include "keep.h"
#include "records.h"

#define AGAIN_OPTION "--again"

/*
 * Execute the keeper's next version, the file `program`, in place: the group, the table, the events' fds and
 * the worker's socket stay. Returns only where that fails. Takes `program` over.
 */
void upgrade(struct keep *keep, const struct records *records, int program);
/* Be again what was upgraded; never returns. */
_Noreturn void go_on(int count, char **words);

#endif
