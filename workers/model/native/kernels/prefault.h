// Takes the pages of an arena before they are used, so that no page fault happens in a step.
#pragma once
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "arena.h"

namespace tokenpost {

// Linux clears a gigabyte of pages in a third of a second, and a start need not wait for that: a thread of low priority
// does it meanwhile. What a step uses before it comes is taken by the step.
class Prefault {
   public:
    Prefault() = default;
    Prefault(const Prefault&) = delete;
    Prefault& operator=(const Prefault&) = delete;
    ~Prefault() {
        is_stopping_ = true;
        if (thread_.joinable()) thread_.join();
    }

    // Begins; nothing may be taken from the arena any more, and it must outlive this object.
    void begin(const Arena& arena) {
#ifdef __linux__
        thread_ = std::thread([this, &arena] {
            setpriority(PRIO_PROCESS, 0, NICENESS);  // of this thread alone
            for_each_span(arena, [](char* from, size_t bytes) { madvise(from, bytes, POPULATE_WRITE); });
        });
#else
        for_each_span(arena, [](char* from, size_t bytes) {
            for (size_t i = 0; i < bytes; i += SMALLEST_PAGE) {
                volatile char* const byte = from + i;
                *byte = *byte;
            }
        });
#endif
    }

   private:
    // <linux/mman.h> from 5.14 on; an older kernel refuses it, and steps take the pages.
    static constexpr int POPULATE_WRITE = 23;
    static constexpr int NICENESS = 10;
    static constexpr size_t SPAN = size_t(8) << 20, SMALLEST_PAGE = 4096;

    template <class Take>
    void for_each_span(const Arena& arena, const Take& take) const {
        for (const auto& block : arena.blocks())
            for (size_t i = 0; i < block.used && !is_stopping_; i += SPAN)
                take(block.begin + i, std::min(SPAN, block.used - i));
    }

    std::atomic<bool> is_stopping_{false};
    std::thread thread_;
};

}  // namespace tokenpost
