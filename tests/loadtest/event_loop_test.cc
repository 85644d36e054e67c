#include "loadtest/event_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace mneme {
namespace {

TEST(EventLoopTest, RunsTasksInTheOrderOfTheirTimesAndOfTheirCalls) {
  EventLoop loop;
  std::string order;
  loop.At(3000, [&] {
    order += 'e';
    loop.Stop();
  });
  loop.At(2000, [&] { order += 'c'; });
  loop.At(2000, [&] { order += 'd'; });
  loop.Post([&] {
    order += 'a';
    loop.Post([&] { order += 'b'; });
  });
  loop.At(int64_t{1} << 50, [&] { order += 'x'; });
  loop.Run();
  EXPECT_EQ(order, "abcde");
  EXPECT_GE(loop.now_us(), 3000);
}

TEST(EventLoopTest, TakesTasksFromOtherThreadsWhileItWaits) {
  EventLoop loop;
  int runs = 0;  // of the loop's thread alone
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 100; ++j) {
        loop.Post([&] {
          if (++runs == 400) loop.Stop();
        });
      }
    });
  }
  loop.Run();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(runs, 400);
}

}  // namespace
}  // namespace mneme
