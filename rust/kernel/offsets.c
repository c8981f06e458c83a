/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's side of bindings.rs, compiled to assembly as offsets.c beside toa.rs is. The macros
 * TOA_EXPORTS_… are those of Kbuild: symbols that are in Module.symvers.
 */
#include <linux/cpumask.h>
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/percpu.h>
#include <linux/printk.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "../../offsets.h"

#if !defined(CONFIG_CC_IS_GCC)
#error "toa: this kernel was built by clang, for which the stand-in crate has no flags yet: make RUST=kernel needs a kernel with CONFIG_RUST"
#endif
#if defined(CONFIG_CFI_CLANG) || defined(CONFIG_CFI) || defined(CONFIG_LTO_CLANG)
#error "toa: this kernel is built with CFI or LTO, for which the stand-in crate has no flags yet: make RUST=kernel needs a kernel with CONFIG_RUST"
#endif
#if defined(CONFIG_PREEMPTION) && !defined(CONFIG_PREEMPT_RCU)
#error "toa: this kernel is preemptible and its RCU is not, which rust/kernel/sync/rcu.rs does not handle yet"
#endif
#if !defined(CONFIG_PRINTK)
#error "toa: this kernel is built without CONFIG_PRINTK, which rust/kernel/print.rs needs"
#endif

/* Functions. Since 6.10, when __vmalloc became a macro, the names have a suffix. */
#ifdef __vmalloc
PROTOTYPE(void *, __kmalloc_noprof, size_t, gfp_t);
PROTOTYPE(void *, __vmalloc_noprof, unsigned long, gfp_t);
#define ALLOC_NOPROF 1
#else
PROTOTYPE(void *, __kmalloc, size_t, gfp_t);
PROTOTYPE(void *, __vmalloc, unsigned long, gfp_t);
#define ALLOC_NOPROF 0
#endif
PROTOTYPE(void, kfree, const void *);
PROTOTYPE(void, kvfree, const void *);
/* Since 5.15 printk is a macro. */
#ifdef printk
PROTOTYPE(int, _printk, const char *, ...);
#define PRINTK_INDEX 1
#else
PROTOTYPE(int, printk, const char *, ...);
#define PRINTK_INDEX 0
#endif
#ifdef CONFIG_PREEMPT_RCU
PROTOTYPE(void, __rcu_read_lock, void);
PROTOTYPE(void, __rcu_read_unlock, void);
#endif
PROTOTYPE(int, seq_write, struct seq_file *, const void *, size_t);
PROTOTYPE(unsigned long, _copy_to_user, void __user *, const void *, unsigned long);

/* Variables. */
#ifndef nr_cpu_ids
VARIABLE(unsigned int, nr_cpu_ids);
#endif
VARIABLE(struct kernel_param_ops, param_ops_uint);
VARIABLE(struct kernel_param_ops, param_ops_int);

void toa_kernel_offsets(void);
void toa_kernel_offsets(void)
{
	CONSTANT(ALLOC_NOPROF, ALLOC_NOPROF);
	CONSTANT(PRINTK_INDEX, PRINTK_INDEX);
	CONSTANT(PREEMPT_RCU, IS_ENABLED(CONFIG_PREEMPT_RCU));
	/* A macro for a constant where CONFIG_FORCE_NR_CPUS or CONFIG_NR_CPUS=1 makes it one. */
#ifdef nr_cpu_ids
	CONSTANT(FORCE_NR_CPUS, 1);
#else
	CONSTANT(FORCE_NR_CPUS, 0);
#endif
	CONSTANT(NR_CPUS, NR_CPUS);

	/* The current CPU and task. */
#if defined(TOA_EXPORTS_pcpu_hot)
	CONSTANT(PCPU_HOT, 1);
	OFFSET_OF(PCPU_HOT_CPU_NUMBER, struct pcpu_hot, cpu_number, 4);
	OFFSET_OF(PCPU_HOT_CURRENT, struct pcpu_hot, current_task, 8);
#elif defined(TOA_EXPORTS_cpu_number) && defined(TOA_EXPORTS_current_task)
	CONSTANT(PCPU_HOT, 0);
	CONSTANT(PCPU_HOT_CPU_NUMBER, 0);
	CONSTANT(PCPU_HOT_CURRENT, 0);
#else
#error "toa: this kernel exports neither pcpu_hot nor cpu_number and current_task: adapt rust/kernel/bindings.rs"
#endif
	OFFSET_OF(TASK_FLAGS, struct task_struct, flags, 4);

	/* module_param.rs */
	CONSTANT(SIZEOF_KERNEL_PARAM, sizeof(struct kernel_param));
	OFFSET_OF(KERNEL_PARAM_MOD, struct kernel_param, mod, 8);
	OFFSET_OF(KERNEL_PARAM_OPS, struct kernel_param, ops, 8);
	OFFSET_OF(KERNEL_PARAM_PERM, struct kernel_param, perm, 2);
	OFFSET_OF(KERNEL_PARAM_LEVEL, struct kernel_param, level, 1);
	OFFSET_OF(KERNEL_PARAM_FLAGS, struct kernel_param, flags, 1);
	OFFSET_OF(KERNEL_PARAM_ARG, struct kernel_param, arg, 8);

	/* alloc.rs */
	CONSTANT(GFP_KERNEL, (__force unsigned int)GFP_KERNEL);
	CONSTANT(GFP_KERNEL_ACCOUNT, (__force unsigned int)GFP_KERNEL_ACCOUNT);
	CONSTANT(GFP_NOWARN_FLAG, (__force unsigned int)__GFP_NOWARN);
	CONSTANT(GFP_NORETRY_FLAG, (__force unsigned int)__GFP_NORETRY);
	CONSTANT(KMALLOC_MINALIGN, ARCH_KMALLOC_MINALIGN);
	CONSTANT(PAGE_SIZE, PAGE_SIZE);

	/* error.rs */
	CONSTANT(MAX_ERRNO, MAX_ERRNO);
	CONSTANT(EPERM, EPERM);
	CONSTANT(ENOENT, ENOENT);
	CONSTANT(E2BIG, E2BIG);
	CONSTANT(ENOMEM, ENOMEM);
	CONSTANT(EFAULT, EFAULT);
	CONSTANT(EBUSY, EBUSY);
	CONSTANT(ENODEV, ENODEV);
	CONSTANT(EINVAL, EINVAL);
	CONSTANT(EDOM, EDOM);
	CONSTANT(ENOPROTOOPT, ENOPROTOOPT);
	CONSTANT(ENOTCONN, ENOTCONN);
}
