#ifndef MNEME_TESTS_STORAGE_EDIT_LOG_H_
#define MNEME_TESTS_STORAGE_EDIT_LOG_H_

#include <rocksdb/db.h>

#include <functional>
#include <string>

namespace mneme {

// Changes the log in a data directory behind the back of its store, which is closed.
void EditLog(const std::string& data_dir, const std::function<void(rocksdb::DB&)>& edit);

// Flips a bit of a record.
void DamageRecord(const std::string& data_dir, const std::string& key);

}  // namespace mneme

#endif  // MNEME_TESTS_STORAGE_EDIT_LOG_H_
