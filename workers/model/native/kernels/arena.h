// Memory in huge pages that many buffers share.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <new>
#include <vector>

namespace tokenpost {

// Hands out memory that is freed with the arena; fresh pages are zero. Huge pages: a step reads all weights, and with small pages their
// addresses would overflow the TLB. In huge pages of its own each of a model's matrices would waste one megabyte of
// 2 on average, which was a tenth of a small model's memory; here only the last page of a block is partly used.
class Arena {
   public:
    Arena() = default;
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;
    ~Arena() {
        for (const auto& block : blocks_) munmap(block.begin, block.mapped);
    }

    // Zeroed memory, aligned to a cache line.
    void* take(size_t bytes) {
        bytes = rounded(bytes, LINE);
        if (bytes > room_) open(bytes);
        void* taken = next_;
        next_ += bytes;
        room_ -= bytes;
        blocks_.back().used = size_t(next_ - blocks_.back().begin);
        return taken;
    }

    // A block of memory, and how much of it was taken.
    struct Block {
        char* begin;
        size_t used, mapped;
    };

    const std::vector<Block>& blocks() const { return blocks_; }

   private:
    static constexpr size_t LINE = 64, HUGE_PAGE = size_t(2) << 20;
    // Pages of a block that nothing was taken from are not in main memory.
    static constexpr size_t BLOCK = size_t(64) << 20;

    static size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

    void open(size_t bytes) {
        room_ = rounded(std::max(bytes, BLOCK), HUGE_PAGE);
        // A huge page more, of which the parts before and behind the aligned block are given back.
        const size_t mapped = room_ + HUGE_PAGE;
        void* const map = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED) throw std::bad_alloc();
        char* const begin = static_cast<char*>(map);
        next_ = reinterpret_cast<char*>(rounded(reinterpret_cast<size_t>(begin), HUGE_PAGE));
        if (next_ > begin) munmap(begin, size_t(next_ - begin));
        if (const size_t rest = size_t(begin + mapped - (next_ + room_))) munmap(next_ + room_, rest);
        blocks_.push_back({next_, 0, room_});
#ifdef MADV_HUGEPAGE
        madvise(next_, room_, MADV_HUGEPAGE);
#endif
    }

    char* next_ = nullptr;
    size_t room_ = 0;
    std::vector<Block> blocks_;
};

}  // namespace tokenpost
