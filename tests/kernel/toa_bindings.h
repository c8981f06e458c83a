/* SPDX-License-Identifier: GPL-2.0 */
/* The kernel's interfaces for the tests' module: those of toa's hooks, and more. */
#include "../../toa_bindings.h"

#include <linux/file.h>
#include <linux/kthread.h>

TOA_OFFSET(TOA_SOCKET_FILE, struct socket, file, 8);
enum { TOA_SIZEOF_SOCKADDR_STORAGE = sizeof(struct sockaddr_storage) };
