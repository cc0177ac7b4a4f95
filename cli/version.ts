/** The version of this program, as `neon --version` prints it. */
export const VERSION = "neon 0.1.0";
