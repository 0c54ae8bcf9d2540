#pragma once

#include "nginx/chatbot.hpp"

namespace chatbot {

// Directories that were the journal until a reload changed
// chatbot_log_journal: records that wait there are not taken to PostgreSQL by
// the new workers.  The error log tells what the old workers left behind, once
// they are gone.

// Remembers the former directory, if it is another one now.  In the master
// process.
void remember_former_journal(ngx_cycle_t* cycle);

// Looks into the former directories from time to time, until all is told.  In
// one worker, on the event loop.
void watch_former_journals();

}  // namespace chatbot
