"""What makes a model a function of its parameters θ: the names that ``Landscape`` uses."""

from mining.functional.batchnorm import BatchNormPolicy as BatchNormPolicy
from mining.functional.batchnorm import Mode as Mode
from mining.functional.description import as_text as as_text
from mining.functional.description import describe as describe
from mining.functional.evaluation import Buffers as Buffers
from mining.functional.evaluation import confidences as confidences
from mining.functional.evaluation import evaluate as evaluate
from mining.functional.evaluation import evaluate_points as evaluate_points
from mining.functional.evaluation import gradient as gradient
from mining.functional.evaluation import losses_of_examples as losses_of_examples
from mining.functional.execution_plan import ExecutionPlan as ExecutionPlan
from mining.functional.fingerprints import fingerprint as fingerprint
from mining.functional.fingerprints import identify as identify
from mining.functional.loss import Batch as Batch
from mining.functional.loss import CountFunction as CountFunction
from mining.functional.loss import LossFunction as LossFunction
from mining.functional.loss import WeightFunction as WeightFunction
from mining.functional.metrics import Evaluation as Evaluation
from mining.functional.minibatches import MiniBatches as MiniBatches
from mining.functional.minibatches import mini_batches as mini_batches
from mining.functional.model_call import Objective as Objective
from mining.functional.points import combine as combine
from mining.functional.prepare import Prepared as Prepared
from mining.functional.prepare import prepare as prepare
from mining.functional.recalibration import PolicyEffect as PolicyEffect
