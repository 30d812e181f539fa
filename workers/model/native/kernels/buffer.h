// Aligned memory that is zeroed when it is allocated, so that no page fault happens in a step.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>

namespace tokenpost {

template <class T>
class Buffer {
   public:
    Buffer() = default;
    explicit Buffer(size_t count) : count_(count) {
        if (count == 0) return;
        // Huge pages: a step reads all weights, and with small pages their addresses would overflow the TLB.
        constexpr size_t HUGE_PAGE = size_t(2) << 20;
        const size_t bytes = bytes_of(count);
        data_ = static_cast<T*>(std::aligned_alloc(bytes >= HUGE_PAGE ? HUGE_PAGE : 64, bytes));
        if (data_ == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        if (bytes >= HUGE_PAGE) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
        std::memset(static_cast<void*>(data_), 0, bytes);
    }
    Buffer(Buffer&& other) noexcept : data_(other.data_), count_(other.count_) { other.data_ = nullptr; }
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(count_, other.count_);
        return *this;
    }
    ~Buffer() { std::free(data_); }

    // The size of a buffer of `count`, padding included.
    static size_t bytes_of(size_t count) {
        if (count == 0) return 0;
        const size_t bytes = count * sizeof(T);
        const size_t unit = bytes >= (size_t(2) << 20) ? size_t(2) << 20 : 64;
        return (bytes + unit - 1) / unit * unit;
    }

    T* get() const { return data_; }
    size_t count() const { return count_; }
    size_t bytes() const { return bytes_of(count_); }
    explicit operator bool() const { return data_ != nullptr; }

   private:
    T* data_ = nullptr;
    size_t count_ = 0;
};

}  // namespace tokenpost
