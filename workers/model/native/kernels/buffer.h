// Memory for numbers, all of them zero at first.
#pragma once
#include <cstddef>

#include "arena.h"

namespace tokenpost {

// Numbers in an arena, which must outlive it.
template <class T>
class Buffer {
   public:
    Buffer() = default;
    Buffer(size_t count, Arena& arena)
        : data_(count == 0 ? nullptr : static_cast<T*>(arena.take(count * sizeof(T)))), count_(count) {}
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer(Buffer&&) = default;
    Buffer& operator=(Buffer&&) = default;

    T* get() const { return data_; }
    size_t count() const { return count_; }
    size_t bytes() const { return count_ * sizeof(T); }
    explicit operator bool() const { return data_ != nullptr; }

   private:
    T* data_ = nullptr;
    size_t count_ = 0;
};

}  // namespace tokenpost
