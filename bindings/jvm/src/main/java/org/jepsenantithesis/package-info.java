/**
 * Drives a long-lived test harness with Antithesis' short-lived test commands.
 *
 * <p>Each test command makes a FIFO in a control directory. A {@link
 * org.jepsenantithesis.Composer} hands it to the harness as a {@link org.jepsenantithesis.FifoOp};
 * completing it sends a result and an exit status back to the command. A {@linkplain
 * org.jepsenantithesis.FifoOp#isCheck() check} ends the main phase.
 *
 * <p>Everything here is thread-safe. The library needs Linux and 64 bits.
 */
package org.jepsenantithesis;
