/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KEEPER_SANDBOX_H
#define KEEPER_SANDBOX_H

#include "protocol.h"

/*
 * From now on this process asks of the kernel only what the door (COMMANDS) or the yard (CONTAINERS) needs: all
 * else fails with ENOSYS. Call it before there are threads. Where it can't be done that is said, and no more.
 */
void sandbox(const char *name, enum group_kind kind);

#endif
