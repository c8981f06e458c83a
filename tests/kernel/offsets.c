/* SPDX-License-Identifier: GPL-2.0 */
/* The kernel's side of tests/kernel/c.rs, and of toa's files that the tests' module compiles. */
#include "../../offsets.c"

#include <linux/file.h>
#include <linux/kthread.h>
#include <linux/timekeeping.h>

PROTOTYPE(struct socket *, sockfd_lookup, int, int *);
PROTOTYPE(void, fput, struct file *);
PROTOTYPE(int, kernel_getpeername, struct socket *, struct sockaddr *);
PROTOTYPE(struct task_struct *, kthread_create_on_node, int (*)(void *), void *, int,
	  const char *, ...);
PROTOTYPE(int, wake_up_process, struct task_struct *);
PROTOTYPE(int, kthread_stop, struct task_struct *);
PROTOTYPE(bool, kthread_should_stop, void);
PROTOTYPE(ktime_t, ktime_get, void);
PROTOTYPE(unsigned int, kmem_cache_size, struct kmem_cache *);

void toa_test_offsets(void);
void toa_test_offsets(void)
{
	OFFSET_OF(SOCKET_FILE, struct socket, file, 8);
	CONSTANT(SIZEOF_SOCKADDR_STORAGE, sizeof(struct sockaddr_storage));
}
