/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The macros of offsets.c, of the stand-in crate's and of the tests'.
 *
 * - PROTOTYPE and VARIABLE assert a declaration of Rust code.
 * - OFFSET_OF is the offset of a field, and asserts the size that Rust reads or writes.
 * - CONSTANT is any other number.
 */

#define PROTOTYPE(ret, what, ...)						\
	_Static_assert(__builtin_types_compatible_p(typeof(&what),		\
						    ret (*)(__VA_ARGS__)),	\
		       "toa: the prototype of " #what " changed in this kernel: adapt the Rust declaration and this one")

#define VARIABLE(type, what)							\
	_Static_assert(__builtin_types_compatible_p(typeof(what), type),	\
		       "toa: the type of " #what " changed in this kernel: adapt the Rust declaration and this one")

#define CONSTANT(name, value)							\
	asm volatile("\n.ascii \"->TOA_" #name " %c0\"" : : "i" (value))

#define OFFSET_OF(name, type, field, size)					\
	do {									\
		_Static_assert(sizeof_field(type, field) == (size),		\
			       "toa: the size of " #field " changed in this kernel: adapt linux/"); \
		CONSTANT(name, offsetof(type, field));				\
	} while (0)

/* Whether the kernel exports the symbol, which must be in the list of Kbuild. */
#define IS_EXPORTED(symbol) IS_ENABLED(TOA_EXPORTS_##symbol)

/* The byte at `index` of a structure whose bit-field `field` is one, and of which all else is zero. */
#define BIT_FIELD_BYTE(type, field, index) ({					\
	const union { type of; unsigned char bytes[sizeof(type)]; } one =	\
		{ .of = { .field = 1 } };					\
	one.bytes[index];							\
})
