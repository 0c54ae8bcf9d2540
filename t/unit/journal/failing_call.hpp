#pragma once

// Makes the N-th system call or allocation fail: failing_call.cpp takes the
// place of the C library's functions in the whole test program.

namespace chatbot {

class FailingCall {
public:
    enum class How {
        no_space,       // ENOSPC
        io_error,       // EIO; a connection is lost
        interrupted,    // EINTR, once
        partly,         // read and write take half; other calls EOPNOTSUPP
        out_of_memory,  // operator new, and no system call
    };

    // From now on, until destroyed, counting from 1.
    FailingCall(unsigned n, How how);
    ~FailingCall();

    FailingCall(const FailingCall&) = delete;
    FailingCall& operator=(const FailingCall&) = delete;

    // Whether there was an N-th call.
    [[nodiscard]] static bool happened();

    // Its name.
    [[nodiscard]] static const char* name();
};

}  // namespace chatbot
