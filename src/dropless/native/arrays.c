/* The buffers of Arrow arrays out of what the readers found. */
#include "values.h"

#define WIDE 16

/* Sets the bit of each row in this state; returns how many there are. */
int64_t dropless_bitmap(const uint8_t *state, int64_t count, uint8_t wanted, uint8_t *bits)
{
    int64_t found = 0;
    memset(bits, 0, (size_t)((count + 7) / 8));
    for (int64_t i = 0; i < count; i++) {
        uint8_t hit = state[i] == wanted;
        bits[i >> 3] |= (uint8_t)(hit << (i & 7));
        found += hit;
    }
    return found;
}

/* The bits of booleans, one byte each. */
void dropless_pack(const uint8_t *values, int64_t count, uint8_t *bits)
{
    memset(bits, 0, (size_t)((count + 7) / 8));
    for (int64_t i = 0; i < count; i++) bits[i >> 3] |= (uint8_t)((values[i] & 1) << (i & 7));
}

/* How many bytes the texts of all rows have. */
int64_t dropless_text_size(const uint8_t *state, const uint32_t *size, int64_t count)
{
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++) total += state[i] == TEXT ? size[i] : 0;
    return total;
}

/* The texts of all rows as one, with their offsets; rows without a text are empty. `data` has room for 16 bytes more. */
void dropless_texts(Text text, int64_t text_size, const uint8_t *state, const uint32_t *begin, const uint32_t *size,
                    int64_t count, int32_t *offsets, uint8_t *data)
{
    int64_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        offsets[i] = (int32_t)at;
        if (state[i] != TEXT) continue;
        Text from = text + begin[i];
        if (size[i] <= WIDE && begin[i] + WIDE <= text_size) /* A copy of a known size is one instruction. */
            memcpy(data + at, from, WIDE);
        else
            memcpy(data + at, from, size[i]);
        at += size[i];
    }
    offsets[count] = (int32_t)at;
}

/* The spans of a text one after the other; `begin` and `end` have one for each of `which`. */
void dropless_spans(Text text, const int64_t *begin, const int64_t *end, const int64_t *which, int64_t count,
                    int32_t *offsets, uint8_t *data)
{
    int64_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        size_t size = (size_t)(end[which[i]] - begin[which[i]]);
        offsets[i] = (int32_t)at;
        memcpy(data + at, text + begin[which[i]], size);
        at += (int64_t)size;
    }
    offsets[count] = (int32_t)at;
}

/* Raised with every change of a signature or a structure; dropless/native/__init__.py loads this one only. */
int32_t dropless_version(void) { return 1; }
