"""What deserves a look: plain sentences about runs and results that should not be believed as they stand."""


def of_history(history):
    """Alarms of one pretraining from its history, one row per epoch with loss, spread and effective_rank."""
    found = []
    last = history.iloc[-1]
    if last.spread < 0.1:
        found.append(f"embeddings have collapsed: their spread is {last.spread:.2f} (1 = even, 0 = one point)")
    if last.effective_rank < 3:
        found.append(f"h uses {last.effective_rank:.1f} directions: the representation is nearly a line")
    if len(history) >= 4:
        before, fall = history.loss.iloc[-2], history.loss.iloc[0] - last.loss
        if fall <= 0:
            found.append(f"the loss did not fall: {history.loss.iloc[0]:.3f} at first, {last.loss:.3f} at last")
        elif before - last.loss > 0.1 * fall:
            found.append("under-trained: the last epoch brought more than a tenth of the whole fall of the loss")
    return found
