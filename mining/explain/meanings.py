"""What each number of an assessment means, and what it does not."""

from typing import NamedTuple


class Meaning(NamedTuple):
    """A line of the report."""

    title: str
    says: str  # what the number means, in one sentence
    does_not_say: str  # what it is often taken for, in one sentence


#: By the name of the quantity, in the order of the report.
MEANINGS = {
    "loss": Meaning(
        "loss",
        "Mean loss at θ over the examples, under the batch-norm policy of the landscape.",
        "It is not the loss of model.eval() if statistics are recalibrated.",
    ),
    "accuracy": Meaning(
        "accuracy",
        "Share of the examples whose class is predicted correctly.",
        "On training examples it says nothing about new ones.",
    ),
    "calibration_error": Meaning(
        "calibration error",
        "Mean distance between confidence and accuracy, over 15 bins of confidence (ECE).",
        "It is positive by chance for a calibrated network, and ignores all but the top class.",
    ),
    "batchnorm_mismatch": Meaning(
        "batch-norm mismatch",
        "Loss with the stored statistics minus the loss with statistics recalibrated at θ.",
        "A negative value is no fault: training with augmented images has other statistics.",
    ),
    "gradient_norm": Meaning(
        "gradient norm ‖g‖",
        "Length of the mean gradient over the examples.",
        "It does not vanish at a minimum of the population's loss: sampling noise adds to it.",
    ),
    "gradient_noise": Meaning(
        "gradient noise",
        "Length that sampling noise alone would give to the gradient.",
        "It is the noise of all these examples together, not of a mini-batch.",
    ),
    "gradient_p_value": Meaning(
        "p of a zero gradient",
        "Probability of a gradient this long if that of the population were zero.",
        "A high value does not show that the gradient is zero.",
    ),
    "gradient_fall": Meaning(
        "fall along -g",
        "Largest fall of the loss found along the negative gradient.",
        "It is a lower bound: training may find more by turning.",
    ),
    "lambda_max": Meaning(
        "λmax",
        "Largest eigenvalue of the Hessian: the sharpest curvature at θ.",
        "It changes when layers are rescaled, so a low value does not mean good generalization.",
    ),
    "stability_limit": Meaning(
        "2 / η",
        "λmax above which gradient descent with the learning rate η of the training diverges.",
        "Momentum, mini-batches and schedules move the limit.",
    ),
    "lambda_min": Meaning(
        "λmin",
        "Smallest eigenvalue of the Hessian: the most negative curvature at θ.",
        "Slightly negative values are usual in trained networks and no sign of a saddle.",
    ),
    "negative_fall": Meaning(
        "fall along N.E.1",
        "Fall of the loss along the eigenvector of λmin, averaged over its two sides.",
        "A negative value means that the loss rises: curvature turns within the steps tried.",
    ),
    "trace": Meaning(
        "trace",
        "Sum of all eigenvalues of the Hessian: the mean curvature times the dimension.",
        "It changes when layers are rescaled.",
    ),
    "adaptive_sharpness": Meaning(
        "adaptive sharpness",
        "Largest rise of the loss found within relative changes of the parameters of size ρ.",
        "It compares networks of one architecture; it is a lower bound of the maximum.",
    ),
    "critical_sharpness": Meaning(
        "critical sharpness",
        "2 / η_c, with the step η_c along the gradient from which the loss is higher than at θ.",
        "It is the curvature along one update, at most λmax on a quadratic.",
    ),
    "r_e": Meaning(
        "r_e",
        "|λmin| / λmax.",
        "It does not apply to spectra that are mainly negative or quasi-singular.",
    ),
    "k_h05": Meaning(
        "K_H0.5",
        "Sum of √|λ| over the negative eigenvalues, relative to that over the positive ones.",
        "It is not a measure of accuracy on other data; its error is over random vectors alone.",
    ),
    "k_h1": Meaning(
        "K_H1",
        "Sum of |λ| over the negative eigenvalues, relative to that over the positive ones.",
        "It is not a measure of accuracy on other data; its error is over random vectors alone.",
    ),
    "c_t": Meaning(
        "C_t",
        "λmin / λmax, which tells mainly positive, symmetric and mainly negative spectra apart.",
        "It says which spectra r_e and K are meant for, and nothing about the network.",
    ),
    "negative_share": Meaning(
        "negative curvature",
        "Share of the negative eigenvalues in the sum of all |λ|.",
        "It counts curvature, not directions.",
    ),
    "curve_width": Meaning(
        "width",
        "Mean width in α, over filter-normalized Gaussian curves, up to half the rise to log C.",
        "Random directions miss the few sharp ones.",
    ),
    "barrier": Meaning(
        "barrier",
        "Largest excess of the loss on the line to the other checkpoint over interpolation.",
        "A barrier on the straight line does not exclude a low path beside it.",
    ),
}


def split_name(name: str) -> tuple[str, str]:
    """Divide the name of a quantity into that of its meaning and the set of its examples."""
    for suffix, examples in (("_test", "test"), ("_shifted", "shifted")):
        if name.endswith(suffix) and name.removesuffix(suffix) in MEANINGS:
            return name.removesuffix(suffix), examples
    return name, ""
