// Memory in huge pages that many buffers share.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace tokenpost {

// Hands out memory that is freed with the arena. Huge pages: a step reads all weights, and with small pages their
// addresses would overflow the TLB. In huge pages of its own each of a model's matrices would waste one megabyte of
// 2 on average, which was a tenth of a small model's memory; here only the last page of a block is partly used.
class Arena {
   public:
    // Zeroed memory, aligned to a cache line.
    void* take(size_t bytes) {
        bytes = rounded(bytes, LINE);
        if (bytes > room_) open(bytes);
        void* taken = next_;
        next_ += bytes;
        room_ -= bytes;
        std::fill_n(static_cast<char*>(taken), bytes, 0);
        return taken;
    }

   private:
    struct Free {
        void operator()(char* block) const { std::free(block); }
    };

    static constexpr size_t LINE = 64, HUGE_PAGE = size_t(2) << 20;
    // Pages of a block that nothing was taken from are not in main memory.
    static constexpr size_t BLOCK = size_t(64) << 20;

    static size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

    void open(size_t bytes) {
        room_ = rounded(std::max(bytes, BLOCK), HUGE_PAGE);
        next_ = static_cast<char*>(std::aligned_alloc(HUGE_PAGE, room_));
        if (next_ == nullptr) throw std::bad_alloc();
        blocks_.emplace_back(next_);
#ifdef MADV_HUGEPAGE
        madvise(next_, room_, MADV_HUGEPAGE);
#endif
    }

    char* next_ = nullptr;
    size_t room_ = 0;
    std::vector<std::unique_ptr<char, Free>> blocks_;
};

}  // namespace tokenpost
