// Turns: a browser opens six connections to a server, and what takes long must not have them all.

/** Does a few things at once, and the rest in the order in which they came. */
class Queue {
  #atOnce;
  #running = 0;
  #waiting = [];

  constructor(atOnce) {
    this.#atOnce = atOnce;
  }

  /** Does `work` when it is its turn, and passes on what comes of it. Fails as fetch does where `signal` is aborted before. */
  async run(work, signal) {
    signal.throwIfAborted();
    if (this.#running < this.#atOnce) this.#running += 1;
    else await this.#turn(signal);
    try {
      return await work();
    } finally {
      // The place goes to who waits longest, or is free.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running -= 1;
    }
  }

  #turn(signal) {
    return new Promise((resolve, reject) => {
      const begin = () => {
        signal.removeEventListener("abort", leave);
        resolve();
      };
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(begin), 1);
        reject(signal.reason);
      };
      this.#waiting.push(begin);
      signal.addEventListener("abort", leave, { once: true });
    });
  }
}

/** Pictures to be classified: the server forms batches of them. */
export const classifications = new Queue(4);

/** All that is worked out beside classifying, which takes seconds. The server does one at a time unless it is told otherwise. One
 * connection is left, for what the views ask now and then. */
export const explanations = new Queue(1);
