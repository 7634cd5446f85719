/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KEEPER_DOOR_H
#define KEEPER_DOOR_H

#include "keep.h"
#include "records.h"

/* Be the door, or the yard: never returns. `keep` has its fds and settings. */
_Noreturn void door(struct keep *keep, const struct records *records);
_Noreturn void yard(struct keep *keep, const struct records *records);

#endif
