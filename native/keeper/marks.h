/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KEEPER_MARKS_H
#define KEEPER_MARKS_H

/*
 * Place or remove one mark that the worker asks for on a socket, and reply with the errno. Returns 0 when
 * the worker is gone. May wait for the file system of what is marked.
 */
int marks_serve(int group, int socket);

#endif
