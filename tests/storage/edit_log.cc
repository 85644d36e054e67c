#include "tests/storage/edit_log.h"

#include <memory>

#include "base/check.h"

namespace mneme {

void EditLog(const std::string& data_dir, const std::function<void(rocksdb::DB&)>& edit) {
  rocksdb::DB* db = nullptr;
  MNEME_CHECK(rocksdb::DB::Open({}, data_dir + "/log", &db).ok());
  const std::unique_ptr<rocksdb::DB> owned(db);
  edit(*owned);
}

void DamageRecord(const std::string& data_dir, const std::string& key) {
  EditLog(data_dir, [&key](rocksdb::DB& db) {
    std::string value;
    MNEME_CHECK(db.Get({}, key, &value).ok());
    value[value.size() / 2] = static_cast<char>(value[value.size() / 2] ^ 1);
    MNEME_CHECK(db.Put({}, key, value).ok());
  });
}

}  // namespace mneme
