/* Strings without libc: comparing, parsing numbers, assembling text in a buffer with a limit. */
#ifndef NEON_LAZY_TEXT_H
#define NEON_LAZY_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Text under construction. Invariant: at < TEXT_BYTES, and what does not fit is cut off. */
#define TEXT_BYTES 640
typedef struct {
    char bytes[TEXT_BYTES];
    size_t at;
} text;

static inline void text_char(text *t, char c)
{
    if (t->at < TEXT_BYTES - 2) t->bytes[t->at++] = c; /* room stays for a newline and a NUL */
}

static inline void text_string(text *t, const char *s)
{
    while (*s) text_char(t, *s++);
}

static inline void text_number(text *t, uint64_t value)
{
    char digits[24];
    int count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    while (count) text_char(t, digits[--count]);
}

/* Ends the text; returns it. */
static inline const char *text_end(text *t)
{
    t->bytes[t->at] = 0;
    return t->bytes;
}

static inline size_t string_length(const char *s)
{
    size_t length = 0;
    while (s[length]) length++;
    return length;
}

/* Length of `prefix` if `s` starts with it, else 0. */
static inline size_t starts_with(const char *s, const char *prefix)
{
    size_t i = 0;
    for (; prefix[i]; i++)
        if (s[i] != prefix[i]) return 0;
    return i;
}

static inline int strings_equal(const char *a, const char *b)
{
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

static inline int bytes_equal(const void *a, const void *b, size_t length)
{
    const unsigned char *p = a, *q = b;
    for (size_t i = 0; i < length; i++)
        if (p[i] != q[i]) return 0;
    return 1;
}

/* Reads decimal digits into `value`; returns where they end, or 0 if none or above 32 bits. */
static inline const char *parse_number(const char *s, uint32_t *value)
{
    uint64_t number = 0;
    const char *start = s;
    for (; *s >= '0' && *s <= '9'; s++) {
        number = number * 10 + (uint64_t)(*s - '0');
        if (number > 0xffffffffu) return 0;
    }
    *value = (uint32_t)number;
    return s == start ? 0 : s;
}

#endif
