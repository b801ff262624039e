/** A clock and a network that tests control, for code that uses `@watchout/client`. */

export { FakeClock } from "./clock.js";
export { FakeNetwork, FakeSocket } from "./network.js";
