// SPDX-License-Identifier: GPL-2.0

//! Modules, and the macro that declares one.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)

use crate::{
    bindings,
    error::Result, //
};

/// The entrypoint to implementing a kernel module.
///
/// For any teardown or cleanup operations, your type may implement [`Drop`].
pub trait Module: Sized + Sync + Send {
    /// Called at module initialization time.
    ///
    /// Equivalent to the `module_init` macro in the C API.
    fn init(module: &'static ThisModule) -> Result<Self>;
}

/// Equivalent to `THIS_MODULE` in the C API.
pub struct ThisModule(*mut bindings::module);

// SAFETY: `THIS_MODULE` may be used from all threads within a module.
unsafe impl Sync for ThisModule {}

impl ThisModule {
    /// Creates a [`ThisModule`] given the `THIS_MODULE` pointer.
    ///
    /// # Safety
    ///
    /// The pointer must be equal to the right `THIS_MODULE`.
    pub const unsafe fn from_ptr(ptr: *mut bindings::module) -> ThisModule {
        ThisModule(ptr)
    }

    /// Access the raw pointer for this module.
    ///
    /// It is up to the user to use it correctly.
    pub const fn as_ptr(&self) -> *mut bindings::module {
        self.0
    }
}

/// Puts a string into the section that `modinfo` reads: C's `MODULE_INFO`.
#[doc(hidden)]
#[macro_export]
macro_rules! modinfo {
    ($($text:expr),+ $(,)?) => {
        const _: () = {
            const TEXT: &str = concat!($($text,)+ "\0");

            #[link_section = ".modinfo"]
            #[used(compiler)]
            static MODINFO: [u8; TEXT.len()] = match TEXT.as_bytes().first_chunk() {
                Some(bytes) => *bytes,
                None => panic!("evaluated by the compiler"),
            };
        };
    };
}

/// Declares a kernel module.
///
/// `type` is the type that implements [`Module`]. The parameters are of the types that
/// [`ModuleParam`](crate::module_param::ModuleParam) names, and are in the module
/// `module_parameters`.
#[macro_export]
macro_rules! module {
    (
        type: $type:ty,
        name: $name:literal,
        authors: [$($author:literal),* $(,)?],
        description: $description:literal,
        license: $license:literal,
        params: {
            $($param:ident: $param_type:tt {
                default: $default:expr,
                description: $text:literal $(,)?
            }),* $(,)?
        } $(,)?
    ) => {
        $($crate::modinfo!("author=", $author);)*
        $crate::modinfo!("description=", $description);
        $crate::modinfo!("license=", $license);
        $(
            $crate::modinfo!("parm=", stringify!($param), ":", $text);
            $crate::modinfo!("parmtype=", stringify!($param), ":", $crate::parmtype!($param_type));
        )*

        pub(crate) mod module_parameters {
            $(
                #[allow(non_upper_case_globals)]
                pub(crate) static $param: $crate::module_param::ModuleParamAccess<$param_type> =
                    $crate::module_param::ModuleParamAccess::new($default);

                const _: () = {
                    #[link_section = "__param"]
                    #[used(compiler)]
                    static PARAM: $crate::module_param::KernelParam =
                        $crate::module_param::KernelParam::new(
                            concat!(stringify!($param), "\0"),
                            &$param,
                        );
                };
            )*
        }

        const _: () = {
            static THIS_MODULE: $crate::ThisModule =
                // SAFETY: The `struct module` that modpost puts into this module.
                unsafe { $crate::ThisModule::from_ptr(&raw mut $crate::bindings::__this_module) };

            static mut MODULE: Option<$type> = None;

            /// # Safety
            ///
            /// The kernel calls it once, when it loads the module.
            #[no_mangle]
            #[link_section = ".init.text"]
            pub unsafe extern "C" fn init_module() -> $crate::ffi::c_int {
                match <$type as $crate::Module>::init(&THIS_MODULE) {
                    Ok(module) => {
                        // SAFETY: Only this function, which runs once, and `cleanup_module`, which
                        // the kernel calls afterwards, access the static.
                        unsafe { MODULE = Some(module) };
                        0
                    }
                    Err(error) => error.to_errno(),
                }
            }

            /// # Safety
            ///
            /// The kernel calls it once, when it unloads the module.
            #[no_mangle]
            #[link_section = ".exit.text"]
            pub unsafe extern "C" fn cleanup_module() {
                // SAFETY: `init_module` has returned.
                unsafe { MODULE = None };
            }

            // The kernel calls the two by address. C's `module_init` and `module_exit` leave these
            // references too: objtool removes the ENDBR of functions without one.
            #[link_section = ".init.data"]
            #[used(compiler)]
            static INIT: unsafe extern "C" fn() -> $crate::ffi::c_int = init_module;

            #[link_section = ".exit.data"]
            #[used(compiler)]
            static EXIT: unsafe extern "C" fn() = cleanup_module;
        };
    };
}
