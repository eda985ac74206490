"""Curvature: operators that multiply vectors, and what their products tell."""

from mining.curvature.dense import make_dense as make_dense
from mining.curvature.density import SpectralDensity as SpectralDensity
from mining.curvature.density import spectral_density as spectral_density
from mining.curvature.eigen import Eigenpairs as Eigenpairs
from mining.curvature.eigen import eigenpairs as eigenpairs
from mining.curvature.loss_at import LossAt as LossAt
from mining.curvature.loss_at import loss_at as loss_at
from mining.curvature.loss_operators import GaussNewtonOperator as GaussNewtonOperator
from mining.curvature.loss_operators import HessianOperator as HessianOperator
from mining.curvature.loss_operators import ResidualOperator as ResidualOperator
from mining.curvature.operators import CurvatureOperator as CurvatureOperator
from mining.curvature.operators import MatrixOperator as MatrixOperator
from mining.curvature.trace import Estimate as Estimate
from mining.curvature.trace import TraceEstimate as TraceEstimate
from mining.curvature.trace import trace as trace
